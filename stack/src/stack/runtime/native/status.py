"""The table of the native parts: how each is, and how much memory it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil
from rich.table import Table

from stack.runtime.native.health import health_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stack.runtime.native.parts import Part
    from stack.runtime.native.supervisor import Supervisor

ON_DEMAND: Final = "on demand"
ALIVE: Final = ("starting", "running")
"""supervisord says `running` only a second after a start."""


@dataclass(frozen=True)
class State:
    """How a part is."""

    part: str
    state: str
    """supervisord's word for it, in small letters; `on demand` for a part that nobody has asked for."""
    pid: int
    """0 where it does not run."""
    up_seconds: int
    memory_mb: int
    problem: str
    """What is wrong; an empty text where it is healthy or need not run."""
    exits: tuple[str, ...]
    """How it has ended by itself since supervisord runs: it was started again each time."""


def part_states(supervisor: Supervisor, parts: Sequence[Part]) -> list[State]:
    """Look at each part."""
    infos, exits = supervisor.infos(), supervisor.exits()
    return [_state(part, infos.get(part.name, {}), exits.get(part.name, [])) for part in parts]


def describe_parts(states: Sequence[State]) -> list[dict[str, object]]:
    """Return the parts as `make status JSON=1` prints them."""
    return [
        {
            "part": one.part,
            "state": one.state,
            "healthy": one.state in ALIVE and not one.problem,
            "problem": one.problem,
            "pid": one.pid or None,
            "up_seconds": one.up_seconds,
            "memory_mb": one.memory_mb,
            "restarts": len(one.exits),
        }
        for one in states
    ]


def status_table(states: Sequence[State]) -> Table:
    """Return the table of the parts."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("part", "state", "pid", "up", "memory", "health", "restarted"):
        table.add_column(title, justify="right" if title in {"pid", "up", "memory"} else "left")
    for one in states:
        table.add_row(one.part, *_row(one))
    table.add_row("all", "", "", "", f"{sum(one.memory_mb for one in states):,} MB", "", "")
    return table


def _state(part: Part, info: dict[str, Any], exits: list[str]) -> State:
    state = info.get("statename", "UNKNOWN").lower()
    if part.on_demand and state == "stopped":
        return State(part.name, ON_DEMAND, 0, 0, 0, "", ())
    problem = health_problem(part) if state in ALIVE else f"is {state}"
    pid = info.get("pid", 0)
    up_seconds = info["now"] - info["start"] if pid else 0
    return State(part.name, state, pid, up_seconds, _resident_megabytes(pid), problem, tuple(exits))


def _row(one: State) -> list[str]:
    if one.state == ON_DEMAND:
        return [f"[dim]{ON_DEMAND}[/]", "", "", "", "", ""]
    return [
        f"[red]{one.state}[/]" if one.problem else f"[green]{one.state}[/]",
        str(one.pid or ""),
        f"{one.up_seconds // 60}:{one.up_seconds % 60:02}" if one.pid else "",
        f"{one.memory_mb:,} MB" if one.memory_mb else "",
        "[red]does not answer[/]" if one.problem else "[green]answers[/]",
        f"{len(one.exits)}x, last: {one.exits[-1]}" if one.exits else "",
    ]


def _resident_megabytes(pid: int) -> int:
    """Return the resident memory of a process and its children; what they share is counted once where that is known."""
    try:
        process = psutil.Process(pid) if pid else None
        family = [process, *process.children(recursive=True)] if process else []
        if len(family) > 1 and psutil.LINUX:
            return int(sum(one.memory_full_info().pss for one in family)) // 2**20
        return int(sum(one.memory_info().rss for one in family)) // 2**20
    except psutil.Error:
        return 0
