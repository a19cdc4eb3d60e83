"""The service with its worker, its consumer and a broker: processes of the comparison's own, which it may kill.

They report to the OAP of the running stack. What each accepts and does is written to a ledger, which outlives them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import httpx
import psutil
from demo_service import ledger

from stack.compare.brokers import Broker, RigError, family_of
from stack.settings import HOST, free_port
from stack.terminal import last_lines

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tracing_claims.variants import Variant

    from stack.compare.brokers import Kind
    from stack.settings import Settings

COMMANDS: Final = {"service": "serve", "worker": "worker", "consumer": "consumer"}
START_SECONDS: Final = 90.0
TERM_SECONDS: Final = 40.0
"""How long a process may take to end by SIGTERM: it drains for 25 s."""
VISIBILITY_SECONDS: Final = 10
"""Redis: after how long a message that nobody has acknowledged is given to somebody else."""


@dataclass
class Times:
    """When what happened to each piece of work, in ms since the epoch, by its id."""

    accepted: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)


@dataclass
class Part:
    """One of the processes, with what it has started."""

    name: str
    command: str
    health: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    start_seconds: float = 0.0

    @property
    def family(self) -> list[psutil.Process]:
        """The process and all those below it."""
        return family_of(self.process) if self.process is not None else []


class Rig:
    """All processes that the comparison needs.

    Args:
        settings: of the running stack: it reports to its OAP.
        kind: which broker.
        parts: those that are wanted.
        broker: whether one is.
        folder: its place below the run directory.
        variables: further ones for the processes.
    """

    def __init__(  # each is one thing that a measurement wants different
        self,
        settings: Settings,
        kind: Kind,
        *,
        parts: tuple[str, ...] = tuple(COMMANDS),
        broker: bool = True,
        folder: str = "all",
        **variables: str,
    ) -> None:
        self.folder = settings.run_dir / "compare" / kind / folder
        self.needs_broker = broker
        self.closed = False
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ledger = self.folder / "ledger"
        self.broker = Broker(kind, self.folder / "broker")
        self.name = f"{settings.service_name}-compare"
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        self.variables = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SERVICE_", "SW_"))},
            "BROKER_URL": self.broker.url if broker else "",
            "SERVICE_PORT": str(port),
            "SERVICE_HOST": HOST,
            "SERVICE_LEDGER_DIR": str(self.ledger),
            "SERVICE_DATA_DIR": str(self.folder / "data"),
            "SERVICE_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
            "SKYWALKING_BACKGROUND_JOURNAL": str(self.folder / "journal"),
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"{HOST}:{settings.oap_grpc_port}",
            **variables,
        }
        self.parts = {name: self._part(name) for name in COMMANDS if name in parts}

    def _part(self, name: str) -> Part:
        health = self.url if name == "service" else f"http://{HOST}:{free_port()}"
        return Part(name, COMMANDS[name], health, self.folder / f"{name}.log")

    def __enter__(self) -> Self:
        try:
            if self.needs_broker:
                self.broker.start()
            for name in self.parts:
                self.start(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all of it; what is accepted and not done is of no interest any more."""
        self.closed = True  # whoever restarts something at this moment
        for name in self.parts:
            self.end(name, signal.SIGKILL)
        self.broker.stop()

    def start(self, name: str) -> None:
        """Start a part and wait until it is ready.

        Raises:
            RigError: it does not come up.
        """
        part = self.parts[name]
        suffix = "" if name == "service" else f"-{name}"
        variables = {
            **self.variables,
            "SW_AGENT_NAME": self.name + suffix,
            "SW_AGENT_INSTANCE_NAME": name,
            "SERVICE_HEALTH_PORT": "0" if name == "service" else part.health.rpartition(":")[2],
        }
        command = [sys.executable, "-m", "demo_service", part.command]
        began = time.monotonic()
        with part.log.open("ab") as output:
            part.process = subprocess.Popen(  # noqa: S603
                command, env=variables, stdout=output, stderr=output, start_new_session=True
            )
        while not _is_ready(part.health):
            if self.closed:
                self.end(name, signal.SIGKILL)
                raise RigError(f"{name} was ended while it started")
            if part.process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise RigError(f"{name} does not come up:\n{last_lines(part.log)}")
            time.sleep(0.02)
        part.start_seconds = time.monotonic() - began

    def end(self, name: str, how: signal.Signals) -> None:
        """End a part: by SIGTERM as a process manager does, or all of its processes at once by SIGKILL."""
        part = self.parts[name]
        family = part.family
        for one in family[:1] if how is signal.SIGTERM else family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(how)
        _, alive = psutil.wait_procs(family, TERM_SECONDS)
        for one in alive:
            one.kill()
        if part.process is not None:
            part.process.wait()
            part.process = None

    def kill_pool_process(self) -> None:
        """Kill one of the processes of the service's pool, which are made by a server of their own."""
        pool = [one for one in self.parts["service"].family[1:] if not one.children()]
        busiest = max(pool, key=lambda one: one.create_time(), default=None)
        if busiest is None:
            raise RigError("the service has no pool to kill a process of")
        busiest.kill()

    def count(self, variant: Variant) -> ledger.Count:
        """Read what became of a variant's work so far."""
        return ledger.read(self.ledger).get(variant.name, ledger.Count())

    def times(self, variant: Variant) -> Times:
        """Read when each piece of a variant's work was accepted, when it began and when it was done.

        Raises:
            RigError: none was done.
        """
        times = Times()
        for file in self.ledger.glob("*.jsonl"):
            for entry in map(json.loads, file.read_text().splitlines()):
                if entry["variant"] == variant.name and entry["event"] != "dead":
                    getattr(times, entry["event"])[entry["id"]] = entry["at_ms"]
        if not times.done:
            raise RigError(f"{variant.name} did none of its work; the logs are in {self.folder}")
        return times

    def forget(self) -> None:
        """Begin a new ledger; nothing may run."""
        for file in self.ledger.glob("*.jsonl"):
            os.truncate(file, 0)

    def wait_until_idle(self, variant: Variant, quiet_seconds: float) -> ledger.Count:
        """Wait until all that was accepted is done or dead, or nothing has changed for so many seconds."""
        before, changed = -1, time.monotonic()
        while True:
            count = self.count(variant)
            ended = len(count.done) + len(count.dead)
            if ended != before:
                before, changed = ended, time.monotonic()
            if (not count.lost and ended) or time.monotonic() - changed > quiet_seconds:
                return count
            time.sleep(0.2)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the processes of each part, the broker included."""
        found = {name: part.family for name, part in self.parts.items()}
        found["broker"] = family_of(self.broker.process) if self.broker.process is not None else []
        return found


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
