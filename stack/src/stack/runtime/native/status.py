"""`make status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
from rich.markup import escape
from rich.table import Table

from stack._console import new_console
from stack._marked import lost
from stack._parts import Part, parts
from stack._start import answers
from stack._supervisor import Supervisor

if TYPE_CHECKING:
    from stack._settings import Settings

NOT_RUNNING = 3
"""The exit code of `status` when nothing runs, as of `systemctl status`."""


def status(settings: Settings) -> int:
    """Show every part; 0 when all that should run does, 1 when one does not, 3 when nothing runs."""
    console = new_console()
    supervisor = Supervisor(settings.run_dir)
    if supervisor.process is None:
        if trouble := lost(settings.run_dir):
            console.print(f"[red]{escape(trouble)}:[/] `make down` ends it, `make up` begins anew")
            return 1
        console.print("the stack is not up: `make up` starts it")
        return NOT_RUNNING
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("part", "state", "pid", "up", "memory", "health", "restarted"):
        table.add_column(title, justify="right" if title in {"pid", "up", "memory"} else "left")
    total, good = 0, True
    for part in parts(settings):
        known = supervisor.info(part.name)
        running = known.get("statename") == "RUNNING"
        healthy = running and answers(part)
        good = good and (healthy or (part.on_demand and known.get("statename") == "STOPPED"))
        memory = _memory(known.get("pid", 0))
        total += memory
        table.add_row(part.name, *_row(part, known, memory, supervisor.exits(part.name), healthy=healthy))
    table.add_row("all", "", "", "", f"{total:,} MB", "", "")
    console.print(table)
    return 0 if good else 1


def _row(part: Part, known: dict[str, Any], memory: int, exits: list[str], *, healthy: bool) -> list[str]:
    state = known.get("statename", "unknown").lower()
    if part.on_demand and state == "stopped":
        return ["[dim]on demand[/]", "", "", "", "", ""]
    seconds = known["now"] - known["start"] if known.get("pid") else 0
    restarted = f"{len(exits)}x, last: {exits[-1]}" if exits else ""
    return [
        f"[green]{state}[/]" if healthy else f"[red]{state}[/]",
        str(known.get("pid") or ""),
        f"{seconds // 60}:{seconds % 60:02}" if known.get("pid") else "",
        f"{memory:,} MB" if memory else "",
        "[green]answers[/]" if healthy else "[red]does not answer[/]",
        restarted,
    ]


def _memory(pid: int) -> int:
    """Resident memory of a process and its children in MB."""
    try:
        process = psutil.Process(pid) if pid else None
        family = [process, *process.children(recursive=True)] if process else []
        return int(sum(one.memory_info().rss for one in family)) // 2**20
    except psutil.Error:
        return 0
