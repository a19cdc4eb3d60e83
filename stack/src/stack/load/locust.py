"""Running Locust without its web page, and reading its results: one line per request."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from stack.settings import HOST, ROOT, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings

LOCUSTFILE: Final = ROOT / "loadtest" / "locustfile.py"
REMOVED_PREFIXES: Final = ("LOAD_", "LOCUST_")
"""Variables with these prefixes are not passed on: they would change a run, and nobody would see why."""


@dataclass(frozen=True)
class Load:
    """A load as it was asked for; `None` leaves a value to the scenario."""

    scenario: str = "smoke"
    users: int | None = None
    rate: float | None = None
    """Requests per second of all users together."""
    duration_seconds: float | None = None
    task_seconds: float | None = None
    processes: int | None = None
    """Locust processes that share the users."""
    tags: tuple[str, ...] = ()
    trace_client: bool = False
    results: str = ""
    """The name of the results' folder, where it is not the scenario's."""

    def folder(self, settings: Settings) -> Path:
        """Where the results go."""
        return settings.run_dir / "load" / (self.results or self.scenario)


class Request(NamedTuple):
    """A request as Locust saw it: start in seconds since the epoch, response time in ms, status 0 without an answer."""

    start: float
    ms: float
    name: str
    status: int
    trace_id: str
    tasks: int
    """Background tasks that it leaves behind."""
    task_seconds: float | None
    """How long each of them was to run; `None` for the service's own default."""
    error: str

    @property
    def end(self) -> float:
        """When the answer had arrived, in seconds since the epoch."""
        return self.start + self.ms / 1000


def scenarios() -> dict[str, str]:
    """Return the name of each scenario, with its first line."""
    files = sorted((ROOT / "loadtest" / "scenarios").glob("*.py"))
    lines = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0] for path in files}
    return {path.stem.replace("_", "-"): line for path, line in lines.items()}


def check_scenario(load: Load) -> None:
    """Refuse an unknown scenario.

    Raises:
        UsageError: no scenario has that name.
    """
    if load.scenario not in scenarios():
        raise UsageError(f"there is no scenario {load.scenario!r}: SCENARIO is one of {', '.join(scenarios())}")


def start_locust(settings: Settings, load: Load, *, quiet: bool = False) -> subprocess.Popen[bytes]:
    """Start Locust with an empty results folder; its exit code is 1 where the scenario's own limits are broken.

    With `quiet` its output goes to `locust.log` in that folder.
    """
    folder = load.folder(settings)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--host", settings.service_url, "--results", str(folder), "--oap-url", settings.oap_url]
    command += ["--csv", str(folder / "locust"), "--html", str(folder / "locust.html")]
    for option, value in (
        ("users", load.users),
        ("rate", load.rate),
        ("run-time", load.duration_seconds and math.ceil(load.duration_seconds)),
        ("task-seconds", load.task_seconds),
        ("processes", load.processes),
    ):
        command += [] if value is None else [f"--{option}", f"{value:g}"]
    if load.users:
        command += ["--spawn-rate", str(min(load.users, 100))]
    if load.processes:
        # A port of this run's own: on the usual one its workers could meet the master of Locust's page.
        with socket.create_server((HOST, 0)) as free:
            port = str(free.getsockname()[1])
        command += ["--master-bind-host", HOST, "--master-bind-port", port, "--master-port", port]
    command += ["--trace-client"] if load.trace_client else []
    command += ["--tags", *load.tags] if load.tags else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(REMOVED_PREFIXES)}
    environment["LOAD_SCENARIO"] = load.scenario
    if not quiet:
        return subprocess.Popen(command, env=environment)  # noqa: S603  # our own command line
    with (folder / "locust.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603  # the same


def read_requests(settings: Settings, load: Load) -> list[Request]:
    """Read the requests of a run, the earliest first."""
    lines = [line for path in load.folder(settings).glob("requests-*.jsonl") for line in path.open()]
    return sorted(Request(*json.loads(line)) for line in lines)


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed; NaN where there are no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
