-- The first schema. Decisions that cannot be added later are in it for good: ids carry their slot,
-- the claim token is (id, lease, claimed_by), leases are never reset, every write has a client-made id.

-- Live jobs only: small and hot. A job that is finished leaves in the statement that settles it.
create table hammerwork.jobs (
    id             uuid        primary key,
    queue          text        not null,
    state          text        not null default 'available'
                               check (state in ('blocked', 'scheduled', 'available', 'running')),
    priority       smallint    not null default 2,
    run_at         timestamptz not null default now(),
    attempt        integer     not null default 0,
    max_attempts   integer     not null default 5 check (max_attempts > 0),
    lease          bigint      not null default 0,
    sequence       integer     not null default 1,
    claimed_by     uuid,
    claimed_at     timestamptz,
    created_at     timestamptz not null default now(),
    timeout        interval,
    result_ttl     interval    not null default interval '1 day',
    correlation_id text,
    cancel_reason  text,
    error          text,
    retry          jsonb,
    context        jsonb,
    origin         jsonb,
    payload        jsonb
) with (
    -- Room for the row of each job's claim, 24 bytes longer, on the page of the job: a fifth less is then
    -- written ahead from enqueueing to history, for a table of twice the pages while jobs wait.
    fillfactor = 48,
    -- Every job makes two dead rows within seconds, so vacuum by count, not by share, and unthrottled.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
comment on column hammerwork.jobs.lease is 'never reset, also not by retry or restore: fences stale workers';
comment on column hammerwork.jobs.sequence is 'rises with every change of the job: the order of its events';

-- Exactly the order in which jobs are claimed. Scheduled, blocked and running rows are not in it.
create index jobs_available on hammerwork.jobs (queue, priority desc, run_at, id) where state = 'available';
create index jobs_scheduled on hammerwork.jobs (run_at) where state = 'scheduled';

-- Finished jobs, by the day they finished: retention drops partitions.
create table hammerwork.history (
    id             uuid        not null,
    queue          text        not null,
    state          text        not null check (state in ('completed', 'cancelled', 'dead')),
    priority       smallint    not null,
    run_at         timestamptz not null,
    attempt        integer     not null,
    max_attempts   integer     not null,
    lease          bigint      not null,
    sequence       integer     not null,
    claimed_by     uuid,
    claimed_at     timestamptz,
    created_at     timestamptz not null,
    finished_at    timestamptz not null default now(),
    ran            interval,
    has_result     boolean     not null default false,
    timeout        interval,
    result_ttl     interval    not null,
    correlation_id text,
    error          text,
    retry          jsonb,
    context        jsonb,
    origin         jsonb,
    payload        jsonb
) partition by range (finished_at);
create index history_id on hammerwork.history (id);
-- Written once and never changed, so payloads stay in the row as far as a page takes them: out of line, 4 KiB
-- would cost 450 bytes more of write-ahead log. (Partitions do not inherit this: make_partitions has it too.)
create table hammerwork.history_default partition of hammerwork.history default
    with (toast_tuple_target = 8160);

create table hammerwork.results (
    job_id     uuid        primary key,
    value      jsonb       not null,
    expires_at timestamptz not null
);
create index results_expires_at on hammerwork.results (expires_at);

-- Attempts that did not succeed; a completed attempt is the history row itself.
create table hammerwork.attempts (
    job_id     uuid        not null,
    attempt    integer     not null,
    lease      bigint      not null,
    worker     uuid,
    started_at timestamptz,
    ended_at   timestamptz not null default now(),
    cause      text        not null check (cause in ('failed', 'timed_out', 'lost')),
    error      text,
    traceback  text
) partition by range (ended_at);
create index attempts_job_id on hammerwork.attempts (job_id);
create table hammerwork.attempts_default partition of hammerwork.attempts default;

create table hammerwork.queues (
    name         text        primary key,
    paused_at    timestamptz,
    pause_reason text
);

-- One row a life of a worker. Jobs are held by it as long as its heartbeat is younger than its lease.
create table hammerwork.workers (
    id           uuid        primary key,
    host         text        not null,
    pid          integer     not null,
    queues       text[]      not null,
    concurrency  integer     not null,
    lease        interval    not null,
    state        text        not null check (state in ('running', 'draining')),
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now()
) with (fillfactor = 50);

create table hammerwork.bridges (
    name          text        primary key,
    kind          text        not null,
    dedupe_window interval    not null,
    paused_at     timestamptz,
    pause_reason  text,
    seen_at       timestamptz not null default now()
);

-- How far a log (Kafka) was read: moved in the transaction that stores what was read. The fence rises
-- with every new owner of the partition, so that whoever owned it before moves nothing more.
create table hammerwork.bridge_offsets (
    bridge      text        not null,
    partition   text        not null,
    next_offset bigint,
    fence       bigint      not null default 1,
    moved_at    timestamptz not null default now(),
    primary key (bridge, partition)
) with (fillfactor = 50);

-- The latest job of a key, for bridges whose tombstones cancel it.
create table hammerwork.bridge_keys (
    bridge text not null,
    key    text not null,
    job_id uuid not null,
    primary key (bridge, key)
);

-- A bridge's message becomes at most one job: this row and the job commit together.
create table hammerwork.inbox (
    bridge      text        not null,
    message_id  text        not null,
    job_id      uuid,
    body_sha256 bytea       not null,
    received_at timestamptz not null default now(),
    primary key (bridge, message_id)
) with (autovacuum_vacuum_insert_scale_factor = 0.05);
create index inbox_received_at on hammerwork.inbox using brin (received_at) with (pages_per_range = 16);

-- Messages that cannot become jobs, and jobs that used up their attempts: reason, bytes, replayable.
create table hammerwork.dead_letters (
    id           uuid        primary key,
    bridge       text,
    queue        text,
    job_id       uuid,
    message_id   text,
    reason       text        not null,
    detail       text        not null default '',
    body         bytea       not null,
    body_size    bigint      not null,
    body_sha256  bytea       not null,
    content_type text,
    headers      jsonb       not null default '{}',
    coordinates  jsonb       not null default '{}',
    message      jsonb       not null default '{}',
    attempts     integer     not null default 0,
    created_at   timestamptz not null default now(),
    replayed_at  timestamptz,
    replayed_as  uuid,
    discarded_at timestamptz,
    check (bridge is not null or queue is not null)
);
comment on column hammerwork.dead_letters.body is 'cut at the bridge''s cap; body_size and body_sha256 are of the whole';
create index dead_letters_open on hammerwork.dead_letters (id) where replayed_at is null and discarded_at is null;
create index dead_letters_job_id on hammerwork.dead_letters (job_id) where job_id is not null;

-- The event log. A reader goes by (xid, id) below the oldest running transaction: ids alone commit out
-- of order, and `id > position` skips what commits late.
create table hammerwork.events (
    id       bigint      generated always as identity,
    xid      xid8        not null default pg_current_xact_id(),
    event_id uuid        not null default gen_random_uuid(),
    job_id   uuid,
    sequence integer     not null default 0,
    type     text        not null,
    queue    text,
    data     jsonb       not null default '{}',
    at       timestamptz not null default clock_timestamp(),
    sink     text
) partition by range (at);
comment on column hammerwork.events.sink is 'a copy of an earlier event that is sent again, to this sink alone';
create index events_position on hammerwork.events (xid, id);
create table hammerwork.events_default partition of hammerwork.events default;

create table hammerwork.sinks (
    name            text        primary key,
    kind            text        not null,
    types           text[]      not null,
    state           text        not null default 'active' check (state in ('active', 'paused', 'disabled')),
    reason          text,
    position_xid    xid8        not null default pg_snapshot_xmin(pg_current_snapshot()),
    position_id     bigint      not null default 0,
    failing_since   timestamptz,
    registered_at   timestamptz not null default now()
) with (fillfactor = 50);

-- What happened at each try to deliver an event; operators read it, nothing depends on it.
create table hammerwork.deliveries (
    sink     text        not null,
    job_id   uuid        not null,
    event_id text        not null,
    attempt  integer     not null,
    status   integer,
    error    text,
    ran      interval    not null,
    response text        not null default '',
    outcome  text        not null,
    at       timestamptz not null default now()
) partition by range (at);
create index deliveries_job_id on hammerwork.deliveries (job_id);
create table hammerwork.deliveries_default partition of hammerwork.deliveries default;

-- Background duties, each held by one process at a time; a higher epoch is a later holder.
create table hammerwork.duties (
    name   text        primary key,
    holder uuid        not null,
    epoch  bigint      not null default 1,
    until  timestamptz not null
) with (fillfactor = 50);


-- Whether any sink wants events of a type: decided here, not by the process that settles the job.
create function hammerwork.event_wanted(type text) returns boolean
    language sql stable parallel safe
    as $$ select exists (select from hammerwork.sinks where types @> array[$1]) $$;

-- Which deployment this is, where several share a broker: made once, and the same after a failover or a restore.
create table hammerwork.deployment (
    single boolean primary key default true check (single),
    id     uuid    not null default gen_random_uuid()
);
insert into hammerwork.deployment default values;

-- A UUIDv7 as core/identity.py makes it (random low bits: a random slot).
create function hammerwork.new_id() returns uuid
    language sql volatile parallel safe
    as $$
    select encode(
        set_bit(set_bit(
            overlay(
                uuid_send(gen_random_uuid())
                placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid
    $$;

-- For triggers and other languages. Part of the public interface: arguments are only ever added at the
-- end. Answers the job's id; an id that exists already is left alone.
create function hammerwork.enqueue(
    queue          text,
    payload        jsonb       default null,
    priority       smallint    default 2::smallint,
    run_at         timestamptz default null,
    max_attempts   integer     default 5,
    timeout        interval    default null,
    correlation_id text        default null,
    headers        jsonb       default null,
    id             uuid        default null
) returns uuid
    language plpgsql volatile
    as $$
declare
    job uuid := coalesce(enqueue.id, hammerwork.new_id());
    due timestamptz := coalesce(enqueue.run_at, now());
begin
    if enqueue.queue !~ '^[a-z][a-z0-9_.-]{0,62}$' then
        raise exception 'queue name % is not allowed', quote_literal(left(enqueue.queue, 80))
            using hint = 'use 1 to 63 of a-z 0-9 _ . - and begin with a letter', errcode = '22023';
    end if;
    if enqueue.priority not between 0 and 4 then
        raise exception 'priority % is not allowed', enqueue.priority
            using hint = '0 background, 1 low, 2 normal, 3 high, 4 critical', errcode = '22023';
    end if;
    if enqueue.timeout <= interval '0' then
        raise exception 'timeout % is not allowed', enqueue.timeout
            using hint = 'longer than nothing, or null for none', errcode = '22023';
    end if;
    if jsonb_typeof(enqueue.headers) <> 'object' then
        raise exception 'headers must be a JSON object, not %', jsonb_typeof(enqueue.headers)
            using errcode = '22023';
    end if;
    with stored as (
        insert into hammerwork.jobs
            (id, queue, payload, priority, state, run_at, max_attempts, timeout, correlation_id, context)
        values
            (job, enqueue.queue, enqueue.payload, enqueue.priority,
             case when due > now() then 'scheduled' else 'available' end,
             due, enqueue.max_attempts, enqueue.timeout, enqueue.correlation_id,
             case when enqueue.headers is not null then jsonb_build_object('headers', enqueue.headers) end)
        on conflict do nothing
        returning jobs.id
    )
    insert into hammerwork.events (job_id, sequence, type, queue, data)
    select stored.id, 1, 'job.enqueued', enqueue.queue,
           jsonb_build_object('priority', enqueue.priority, 'run_at', due, 'correlation_id', enqueue.correlation_id)
    from stored where hammerwork.event_wanted('job.enqueued');
    perform pg_notify('hammerwork', 'queue ' || enqueue.queue);
    return job;
end
$$;

-- Daily partitions from today to `days` ahead. A day whose rows already fell into the default partition
-- is left there; the default is the net under a missed run, so that no settle ever fails for want of one.
create function hammerwork.make_partitions(days integer) returns integer
    language plpgsql volatile
    as $$
declare
    parent text;
    day date;
    made integer := 0;
begin
    foreach parent in array array['history', 'attempts', 'events', 'deliveries'] loop
        for day in select generate_series(current_date, current_date + days, interval '1 day')::date loop
            if to_regclass(format('hammerwork.%I', parent || '_' || to_char(day, 'YYYYMMDD'))) is null then
                begin
                    execute format(
                        'create table hammerwork.%I partition of hammerwork.%I for values from (%L) to (%L) %s',
                        parent || '_' || to_char(day, 'YYYYMMDD'), parent,
                        day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC',
                        case parent when 'history' then 'with (toast_tuple_target = 8160)' end);
                    made := made + 1;
                exception when check_violation then
                    null;
                end;
            end if;
        end loop;
    end loop;
    return made;
end
$$;

select hammerwork.make_partitions(7);
