"""The table of the native parts: how each is, and how much memory it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
from rich.table import Table

from stack.runtime.native.health import health_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stack.runtime.native.parts import Part
    from stack.runtime.native.supervisor import Supervisor


def status_table(supervisor: Supervisor, parts: Sequence[Part]) -> tuple[Table, dict[str, str]]:
    """Return the table, and what is wrong with each part that should run and is not healthy."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("part", "state", "pid", "up", "memory", "health", "restarted"):
        table.add_column(title, justify="right" if title in {"pid", "up", "memory"} else "left")
    total_megabytes = 0
    problems: dict[str, str] = {}
    infos, exits = supervisor.infos(), supervisor.exits()
    for part in parts:
        info = infos.get(part.name, {})
        state = info.get("statename", "UNKNOWN")
        problem = health_problem(part) if state in {"STARTING", "RUNNING"} else f"is {state.lower()}"
        if problem and not (part.on_demand and state == "STOPPED"):
            problems[part.name] = problem
        megabytes = _resident_megabytes(info.get("pid", 0))
        total_megabytes += megabytes
        table.add_row(part.name, *_row(part, info, megabytes, exits.get(part.name, []), healthy=not problem))
    table.add_row("all", "", "", "", f"{total_megabytes:,} MB", "", "")
    return table, problems


def _row(part: Part, info: dict[str, Any], megabytes: int, exits: list[str], *, healthy: bool) -> list[str]:
    state = info.get("statename", "unknown").lower()
    if part.on_demand and state == "stopped":
        return ["[dim]on demand[/]", "", "", "", "", ""]
    seconds = info["now"] - info["start"] if info.get("pid") else 0
    restarted = f"{len(exits)}x, last: {exits[-1]}" if exits else ""
    return [
        f"[green]{state}[/]" if healthy else f"[red]{state}[/]",
        str(info.get("pid") or ""),
        f"{seconds // 60}:{seconds % 60:02}" if info.get("pid") else "",
        f"{megabytes:,} MB" if megabytes else "",
        "[green]answers[/]" if healthy else "[red]does not answer[/]",
        restarted,
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
