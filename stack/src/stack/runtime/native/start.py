"""Starting parts side by side, and waiting until each of them answers."""

from __future__ import annotations

import time
import xmlrpc.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx
from rich.markup import escape

from stack._doctor import ports_of
from stack._progress import Progress
from stack._supervisor import ALIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from stack._parts import Part
    from stack._settings import Settings
    from stack._supervisor import Supervisor

TAIL: Final = 20
"""Lines of a part's log that are shown when it fails."""
ENOUGH: Final = 3
"""How often a part may end before it counts as broken."""
NEWS: Final = 10
"""s between two lines about the same wait, where there is no terminal."""
ANSWER: Final = 5
"""s that a part's health URL gets for its answer."""
PAUSE: Final = 0.1
"""s between two looks."""


@dataclass
class _Wait:
    """One start of one part."""

    part: Part
    exits_before: int
    progress: Progress
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def start(console: Console, supervisor: Supervisor, settings: Settings, wanted: Sequence[Part]) -> bool:
    """Start parts and wait for each; say which one fails, why, and what it said last."""
    waiting = [_Wait(part, len(supervisor.exits(part.name)), Progress(supervisor.log_of(part.name))) for part in wanted]
    starting = [part.name for part in wanted if _ensure(supervisor, part.name)]
    if starting and not console.is_terminal:
        console.print(f"starting {', '.join(starting)}")
    began, news = time.monotonic(), NEWS
    with console.status("") as status:
        while waiting:
            seconds = time.monotonic() - began
            line = f"waiting for {', '.join(wait.part.name for wait in waiting)} ({seconds:.0f} s)"
            status.update(line)
            if not console.is_terminal and seconds > news:
                console.print(line)
                news += NEWS
            for wait in list(waiting):
                name = wait.part.name
                if supervisor.state(name) == "RUNNING" and answers(wait.part):
                    console.print(
                        f"{name} answers after {wait.seconds:.1f} s" if name in starting else f"{name} answers"
                    )
                    waiting.remove(wait)
                elif reason := _failure(supervisor, settings, wait):
                    console.print(f"[red]{name} is not up:[/] {escape(reason)}. Its last lines:")
                    console.print(wait.progress.last_lines(TAIL) or "(none)", markup=False)
                    return False
            if waiting:
                time.sleep(PAUSE)
    return True


def answers(part: Part) -> bool:
    """Say whether the part's health URL answers with success."""
    try:
        return bool(httpx.get(part.health, timeout=ANSWER, trust_env=False).is_success)
    except httpx.HTTPError:
        return False


def _ensure(supervisor: Supervisor, name: str) -> bool:
    """Have a part started; false when it runs or supervisord is about to start it."""
    if supervisor.state(name) in ALIVE:
        return False
    try:
        supervisor.rpc.startProcess(name, False)
    except xmlrpc.client.Fault:  # started again by supervisord in between
        return False
    return True


def _failure(supervisor: Supervisor, settings: Settings, wait: _Wait) -> str | None:
    """Say why a part can't come up any more; `None` as long as it may."""
    part = wait.part
    exits = supervisor.exits(part.name)[wait.exits_before :]
    if supervisor.state(part.name) == "FATAL" or len(exits) >= ENOUGH:
        how = f" ({exits[-1]})" if exits else ""
        reason = f"it ended each time it was started{how}"
        taken = [check for check in ports_of(settings, [part]) if not check.fine]
        return "; ".join([reason, *(f"{check.name} is {check.finding}" for check in taken)])
    if supervisor.process is None:
        return "supervisord has ended"
    return late(settings, part, wait.progress.idle_seconds(supervisor.info(part.name).get("pid", 0)), wait.seconds)


def late(settings: Settings, part: Part, idle: float, seconds: float) -> str | None:
    """Say that a part takes too long; `None` as long as it may.

    Args:
        settings: how long it may take at most.
        part: the part.
        idle: s for which it has shown no progress.
        seconds: s since it was started.
    """
    if idle > part.quiet_seconds:
        return f"{part.health} does not answer after {seconds:.0f} s, and for {idle:.0f} s it has done nothing"
    if seconds > settings.start_seconds:
        advice = f"give it more with START_SECONDS={settings.start_seconds * 2}"
        return f"{part.health} does not answer after {seconds:.0f} s, though it is at work: {advice}"
    return None
