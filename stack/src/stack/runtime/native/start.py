"""Starting parts side by side, and waiting until each of them answers."""

from __future__ import annotations

import time
import xmlrpc.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stack.runtime.checks import check_ports
from stack.runtime.native.health import answers
from stack.runtime.native.progress import Progress
from stack.runtime.native.supervisor import ALIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from stack.runtime.native.parts import Part
    from stack.runtime.native.supervisor import Supervisor
    from stack.settings import Settings

MOST_EXITS: Final = 3
"""A part that has ended so often during its start counts as broken."""
NEWS_SECONDS: Final = 10
"""Time between two lines about the same wait, where there is no terminal."""
LOOK_SECONDS: Final = 0.1
"""Time between two looks at the parts."""


class PartError(RuntimeError):
    """A part that does not come up: which one, why, and the last lines of its log."""

    def __init__(self, name: str, reason: str, last_lines: str) -> None:
        super().__init__(f"{name} is not up: {reason}")
        self.name = name
        self.reason = reason
        self.last_lines = last_lines


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


def start(console: Console, supervisor: Supervisor, settings: Settings, wanted: Sequence[Part]) -> None:
    """Start parts and wait for each.

    Raises:
        PartError: a part does not come up.
    """
    exits, infos = supervisor.exits(), supervisor.infos()
    waiting = [_Wait(part, len(exits.get(part.name, ())), Progress(supervisor.log_of(part.name))) for part in wanted]
    starting = [part.name for part in wanted if _request_start(supervisor, part.name, infos)]
    if starting and not console.is_terminal:
        console.print(f"starting {', '.join(starting)}")
    began, news_seconds = time.monotonic(), NEWS_SECONDS
    with console.status("") as status:
        while waiting:
            seconds = time.monotonic() - began
            line = f"waiting for {', '.join(wait.part.name for wait in waiting)} ({seconds:.0f} s)"
            status.update(line)
            if not console.is_terminal and seconds > news_seconds:
                console.print(line)
                news_seconds += NEWS_SECONDS
            exits, infos = supervisor.exits(), supervisor.infos()
            for wait in list(waiting):
                name = wait.part.name
                info = infos.get(name, {})
                # supervisord says RUNNING only a second after the start; who answers by then is up all the same.
                if info.get("statename") in {"STARTING", "RUNNING"} and info["pid"] and answers(wait.part):
                    after = f" after {wait.seconds:.1f} s" if name in starting else ""
                    console.print(f"{name} answers{after}")
                    waiting.remove(wait)
                elif reason := _failure(supervisor, settings, wait, info, exits.get(name, [])):
                    raise PartError(name, reason, wait.progress.last_lines())
            if waiting:
                time.sleep(LOOK_SECONDS)


def _request_start(supervisor: Supervisor, name: str, infos: dict[str, dict[str, Any]]) -> bool:
    """Tell supervisord to start a part; false when the part runs, or supervisord is about to start it."""
    if infos.get(name, {}).get("statename") in ALIVE_STATES:
        return False
    try:
        supervisor.rpc.startProcess(name, False)
    except xmlrpc.client.Fault:  # started again by supervisord in between
        return False
    return True


def _failure(
    supervisor: Supervisor, settings: Settings, wait: _Wait, info: dict[str, Any], all_exits: list[str]
) -> str | None:
    """Say why a part can't come up any more; `None` as long as it may."""
    part, exits = wait.part, all_exits[wait.exits_before :]
    if info.get("statename") == "FATAL" or len(exits) >= MOST_EXITS:
        how = f" ({exits[-1]})" if exits else ""
        reason = f"it ended each time it was started{how}"
        taken = [check for check in check_ports(settings, [part]) if not check.fine]
        return "; ".join([reason, *(f"{check.name} is {check.finding}" for check in taken)])
    if supervisor.process is None:
        return "supervisord has ended"
    return too_slow(settings, part, wait.progress.idle_seconds(info.get("pid", 0)), wait.seconds)


def too_slow(settings: Settings, part: Part, idle_seconds: float, seconds: float) -> str | None:
    """Say why a part is given up; `None` as long as it is worth waiting.

    Args:
        settings: has the longest time that a start may take.
        part: the part.
        idle_seconds: for how long it has made no progress.
        seconds: time since it was started.
    """
    if idle_seconds > part.quiet_seconds:
        return (
            f"{part.health} does not answer after {seconds:.0f} s, and there was no progress for {idle_seconds:.0f} s"
        )
    if seconds > settings.start_seconds:
        advice = f"give it more time with START_SECONDS={settings.start_seconds * 2}"
        return f"{part.health} does not answer after {seconds:.0f} s, but it still makes progress: {advice}"
    return None
