"""RegistryService: a schema registry that tests may fill."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from . import ServiceMissing, StartFailed, docker_answers, free_port, private_directory, wait_until
from .container import Container

VARIABLE = "HAMMERWORK_TEST_REGISTRY_URL"
VERSION = "3.0.9"
"""Of Apicurio Registry: the last that Java 17 runs."""
FETCHED = Path(__file__).resolve().parents[2] / "build" / "registry"
INSTALL = "apt-get install default-jre-headless maven"
API = "/apis/ccompat/v7"
JAVA = ("java", "-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class RegistryService:
    """One registry for the tests of a module; `url` is what a client of ours is given."""

    def __init__(self, url: str, engine: Container | LocalRegistry | None = None) -> None:
        self.url = url
        self._engine = engine

    def close(self) -> None:
        """Stop it, if it is ours. Idempotent."""
        if self._engine is not None:
            self._engine.close()


def find_registry() -> RegistryService:
    """A running registry: from the environment, Docker, or Apicurio from Maven's artifacts.

    Raises ServiceMissing, or StartFailed when it is installed and did not come up.
    """
    if url := os.environ.get(VARIABLE):
        return RegistryService(url)
    if docker_answers():
        container = Container(
            f"apicurio/apicurio-registry:{VERSION}",
            port=8080,
            environment={},
            probe=["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"],
        )
        container.url = f"http://127.0.0.1:{container.published}{API}"
        return _started(container)
    if (jar := fetched()) is None:
        raise ServiceMissing("schema registry", variable=VARIABLE, install=INSTALL)
    return _started(LocalRegistry(jar))


def _started(engine: Container | LocalRegistry) -> RegistryService:
    try:
        engine.start()
    except BaseException:
        engine.close()
        raise
    return RegistryService(engine.url, engine)


def fetched() -> Path | None:
    """What Java starts; Maven fetches it when it is not here. None where there is no Java or no Maven."""
    folder = FETCHED / VERSION
    if shutil.which("java") is None:
        return None
    if not folder.exists():
        FETCHED.mkdir(parents=True, exist_ok=True)
        archive, fresh = FETCHED / f"{VERSION}.{os.getpid()}.zip", FETCHED / f"{VERSION}.{os.getpid()}"
        artifact = f"-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:zip:all"
        # 2.8 is the last of this plugin that can leave the artifact's parents alone.
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get"
        command = [
            "mvn",
            "--quiet",
            "--batch-mode",
            plugin,
            artifact,
            "-Dtransitive=false",
            f"-Ddest={archive}",
        ]
        try:
            subprocess.run([*command, f"-Ddest={archive}"], check=True, capture_output=True, timeout=600)
        except (FileNotFoundError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return None
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(fresh)
        archive.unlink()
        fresh.rename(folder)
    return next(folder.glob("apicurio-registry-app-*-runner.jar"), None)


class LocalRegistry:
    """Apicurio Registry on 127.0.0.1, with all its data in memory."""

    def __init__(self, jar: Path) -> None:
        self._jar = jar
        self._home = private_directory("registry", {})
        self._log = self._home / "output"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}{API}"

    def start(self) -> None:
        settings = ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*JAVA, *settings, "-jar", str(self._jar)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
            )
        wait_until(self._ready, deadline=120, failed=self._end_of_log)

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def _ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise StartFailed(self._end_of_log())
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5):
                return True
        except urllib.error.URLError:
            return False

    def _end_of_log(self) -> str:
        return f"the schema registry did not start:\n{self._log.read_text()[-2000:]}"
