"""The stack's containers: how each is, and how much memory it takes."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from stack.runtime.engine import EngineError, ask_docker, last_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack.runtime.compose.project import Project

BYTES_BY_UNIT: Final = {"B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


@dataclass(frozen=True)
class Container:
    """One container."""

    id: str
    part: str
    state: str
    healthy: bool
    up_seconds: int
    restarts: int

    def last_lines(self, lines: int, since: datetime) -> str:
        """Return the last lines that it has written since then."""
        done = subprocess.run(  # noqa: S603  # our own command line
            ["docker", "logs", "--tail", str(lines), "--since", since.isoformat(), self.id],  # noqa: S607
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return done.stdout.rstrip() or "(none)"


def containers(project: Project) -> list[Container]:
    """Return the containers of the project, ended ones too.

    Raises:
        EngineError: the engine does not say.
    """
    try:
        ids = project.ask("ps", "--all", "--quiet").split()
        found = json.loads(ask_docker("inspect", *ids)) if ids else []
    except subprocess.CalledProcessError as error:
        reason = f"Compose can't list the containers ({last_line(error.stderr)})"
        raise EngineError(reason, "look at `docker ps` and `docker info`") from error
    return sorted(map(_read, found), key=lambda container: container.part)


def _read(found: dict[str, Any]) -> Container:
    state = found["State"]
    health = state.get("Health", {}).get("Status", "healthy")
    running = state["Status"] == "running"
    # Nanoseconds are more than Python reads.
    started = datetime.fromisoformat(state["StartedAt"][:19]).replace(tzinfo=UTC)
    return Container(
        found["Id"],
        found["Config"]["Labels"]["com.docker.compose.service"],
        health if running else f"{state['Status']} ({state['ExitCode']})",
        running and health == "healthy",
        int((datetime.now(UTC) - started).total_seconds()) if running else 0,
        found["RestartCount"],
    )


def memory_bytes(ids: Sequence[str]) -> dict[str, int]:
    """Return how many bytes each of these running containers takes, without its page cache."""
    if not ids:
        return {}
    lines = ask_docker("stats", "--no-stream", "--no-trunc", "--format", "{{.ID}} {{.MemUsage}}", *ids).splitlines()
    return {line.split()[0]: parse_bytes(line.split()[1]) for line in lines}


def parse_bytes(size: str) -> int:
    """Read a size as Docker writes it, such as `397.5MiB`."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", size).groups()  # type: ignore[union-attr]
    return int(float(number) * BYTES_BY_UNIT[unit])


def memory_megabytes(found: Sequence[Container]) -> dict[str, int]:
    """Return how many MB each of these containers takes, by its id; 0 of one that does not run."""
    used = memory_bytes([container.id for container in found if container.up_seconds])
    return {container.id: used.get(container.id, 0) // 2**20 for container in found}


def describe_parts(found: Sequence[Container], megabytes: Mapping[str, int]) -> list[dict[str, object]]:
    """Return the containers as `make status JSON=1` prints them; a part with several has several entries."""
    return [
        {
            "part": one.part,
            "state": one.state,
            "healthy": one.healthy,
            "problem": "" if one.healthy else f"is {one.state}",
            "up_seconds": one.up_seconds,
            "memory_mb": megabytes[one.id],
            "restarts": one.restarts,
        }
        for one in found
    ]


def status_table(found: Sequence[Container], megabytes: Mapping[str, int]) -> Table:
    """Return a table of containers: how each is, for how long, and how much memory it takes."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("part", "state", "up", "memory", "restarted"):
        table.add_column(title, justify="right" if title in {"up", "memory"} else "left")
    for one in found:
        state = f"[green]{one.state}[/]" if one.healthy else f"[red]{one.state}[/]"
        up = f"{one.up_seconds // 60}:{one.up_seconds % 60:02}" if one.up_seconds else ""
        restarts = f"{one.restarts}x" if one.restarts else ""
        table.add_row(one.part, state, up, _megabytes(megabytes[one.id]), restarts)
    table.add_row("all", "", "", _megabytes(sum(megabytes.values())), "")
    return table


def _megabytes(size_megabytes: int) -> str:
    return f"{size_megabytes:,} MB" if size_megabytes else ""
