// Graphile Worker: bulk addJobs, and one runner with a local queue and batched completion that drains no-op jobs.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// What npm installed lies beside NODE_PATH, which imports do not look at and require does.
const require = createRequire(import.meta.url);
const { makeWorkerUtils, run, Logger } = await import(pathToFileURL(require.resolve("graphile-worker")));
const pg = require("pg");

const BATCH = 1000;
const [command, dsn, jobs, payloads, setting] = process.argv.slice(2);
const logger = new Logger(() => () => {});

function spending() {
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    return { seconds: (performance.now() - started) / 1000, cpu: (user + system) / 1e6 };
  };
}

async function install() {
  const utils = await makeWorkerUtils({ connectionString: dsn, logger });
  await utils.migrate();
  await utils.release();
}

async function enqueue() {
  const texts = JSON.parse(readFileSync(payloads, "utf8"));
  const given = Array.from({ length: Number(jobs) }, (_, number) => texts[number % texts.length]);
  const utils = await makeWorkerUtils({ connectionString: dsn, logger });
  const spent = spending();
  for (let start = 0; start < given.length; start += BATCH) {
    await utils.addJobs(given.slice(start, start + BATCH).map((payload) => ({ identifier: "bench", payload })));
  }
  const answer = spent();
  await utils.release();
  return answer;
}

async function drain() {
  const [concurrency, size] = setting.split(" ").map(Number);
  const connection = new pg.Client({ connectionString: dsn });
  await connection.connect();
  let [awaited, complete] = [Number(jobs), undefined];
  const ended = new Promise((resolve) => (complete = resolve));
  const spent = spending();
  const runner = await run({
    connectionString: dsn,
    logger,
    noHandleSignals: true,
    concurrency,
    taskList: { bench: async () => void (--awaited || complete()) },
    preset: { worker: { localQueue: { size }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
  });
  await ended;
  const left = "select exists (select from graphile_worker._private_jobs)";
  while ((await connection.query(left)).rows[0].exists) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const answer = spent();
  await connection.end();
  await runner.stop();
  return answer;
}

const answer = await { install, enqueue, drain }[command]();
if (answer) console.log(JSON.stringify(answer));
