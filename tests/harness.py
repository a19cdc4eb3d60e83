"""Real OAPs and real servers for the tests that cross parts."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import httpx
import psutil
import pytest
from oap_query import Oap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

T = TypeVar("T")
HERE = Path(__file__).parent
ROOT = HERE.parent
OAP_START_SECONDS = 300.0  # on a machine that does much else
# Below what the kernel gives to connections, and a range for each of pytest-xdist's workers: a port that was found
# free is still free seconds later, when the server that was started listens on it.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST, _SIZE = 13_000 + _WORKER % 6 * 3_000, 3_000
_STACKS = {15_672, 17_913}  # defaults of the stack, which a test that changes only some ports leaves in place
_FREE = [port for port in range(_FIRST, _FIRST + _SIZE) if port not in _STACKS]
_PORTS = cycle(random.sample(_FREE, len(_FREE)))


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on; each time another one."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError


def wait_until(ready: object, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait for `ready()`; fail with the log's end when the process dies or the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
            pytest.fail(f"{process.args!r} is not up (exit code {process.poll()}):\n{tail}")
        time.sleep(0.1)


def eventually(look: Callable[[], T], seconds: float = 40) -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


@dataclass
class OapServer:
    """An OAP to report to and to read from."""

    grpc: str
    url: str

    @property
    def client(self) -> Oap:
        return Oap(self.url)

    def wait(self) -> None:
        """Wait until it answers: somebody else has started it."""
        if not eventually(self.client.healthy, OAP_START_SECONDS):
            pytest.fail(f"the OAP that was given does not answer at {self.url}")


@dataclass
class Server:
    """A running service: where it is, its process, and what it wrote."""

    url: str
    name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def stop(self, seconds: float = 30) -> int:
        """End it as a process manager does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def trace_ids(oap: OapServer, service: str, began: datetime, expected: set[str]) -> set[str]:
    """Return the ids of a service's traces since then, when OAP lists all that are expected, or after 40 s."""
    eventually(lambda: oap.client.traces_since(service, began) >= expected)
    return oap.client.traces_since(service, began)


class EmbeddedOap(OapServer):
    """An OAP of the test session's own; it can be stopped and started again on the same data."""

    def __init__(self, data: Path, overlay: Path = ROOT / "oap" / "config", **environment: str) -> None:
        self.data, self.log = data, data.with_suffix(".log")
        self.overlay, self.environment = overlay, environment
        self.grpc_port, self.http_port = free_port(), free_port()
        super().__init__(f"127.0.0.1:{self.grpc_port}", f"http://127.0.0.1:{self.http_port}")
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """Run one whose data are in this folder."""
        own = cls(folder / "data")
        own.start()
        yield own
        own.stop()

    def launch(self) -> None:
        """Start it without waiting for it."""
        command = [sys.executable, "-m", "oap_embedded", "run", "--data", str(self.data), "--host", "127.0.0.1"]
        command += ["--overlay", str(self.overlay)]
        command += ["--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port)]
        with self.log.open("ab") as output:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def start(self) -> None:
        self.launch()
        assert self.process
        wait_until(self.client.healthy, self.process, self.log, OAP_START_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None


def find_uv() -> Path | str:
    """Return the uv that the repository works with."""
    return shutil.which("uv") or ROOT / ".run" / "uv" / "bin" / "uv"


def find_python(version: str) -> str:
    """Return an interpreter of that version, which uv may bring; skip aloud where there is none."""
    uv = find_uv()
    for command in (["find", "--no-project"], ["install"], ["find", "--no-project"]):
        done = subprocess.run([uv, "python", *command, version], capture_output=True, text=True, check=False)
        if command[0] == "find" and done.returncode == 0:
            return done.stdout.strip()
    return pytest.skip(f"there is no Python {version} here, and uv can't bring one")


def make_python(version: str, requirements: tuple[str, ...], folder: Path) -> Path:
    """Make an environment of that version of Python, with these packages or else those of the lock."""
    uv = find_uv()
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    find_python(version)
    install = [uv, "pip", "install", "--python", folder / "bin" / "python", "--no-binary", "apache-skywalking"]
    commands = [
        [uv, "venv", "--python", version, folder],
        [*install, "-e", ROOT / "tracing", *requirements],
    ]
    if not requirements:
        environment["UV_PROJECT_ENVIRONMENT"] = str(folder)
        commands = [[uv, "sync", "--locked", "--project", ROOT, "--python", version]]
    for command in commands:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"


@contextmanager
def serve(  # noqa: PLR0913  # each is one thing a test wants different
    directory: Path,
    name: str,
    grpc: str,
    *,
    app: str = "cases_app:both",
    module: str = "",
    arguments: tuple[str, ...] = (),
    command: Sequence[str] = (),
    health: str = "/up",
    python: Path | str = sys.executable,
    port: int = 0,
    **environment: str,
) -> Iterator[Server]:
    """Run an app under a real uvicorn, of another environment's Python if need be, that reports to `grpc` as `name`.

    A `command` runs instead: another server, which listens on `port`.
    """
    port = port or free_port()
    log = directory / f"{name}.log"
    words = [str(python), "-m", "uvicorn", app, "--app-dir", str(HERE), "--host", "127.0.0.1"]
    words += ["--port", str(port), "--no-access-log", *arguments]
    if module:  # a program of its own, which brings its server along
        words = [str(python), "-m", module]
    env = {
        **os.environ,
        "SW_AGENT_NAME": name,
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": grpc,
        "SERVICE_PORT": str(port),
        **environment,
    }
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(command or words, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: answers(url + health), process, log, 120)
        yield Server(url, name, process, log)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()  # its workers too: they don't notice that it is gone
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Say whether a server answers there with success."""
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False
