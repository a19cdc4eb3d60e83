"""Starting parts side by side, and waiting until each of them answers."""

from __future__ import annotations

import os
import time
import xmlrpc.client
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stack.runtime.checks import check_ports
from stack.runtime.native.health import answers
from stack.runtime.native.progress import Progress
from stack.runtime.native.supervisor import ALIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.status import Status

    from stack.runtime.native.parts import Part
    from stack.runtime.native.supervisor import Supervisor
    from stack.settings import Settings

MOST_EXITS: Final = 3
"""A part that has ended so often during its start counts as broken."""
NEWS_SECONDS: Final = 10
"""Time between two lines about the same wait, where there is no terminal."""
SIDE_BY_SIDE: Final = max(2, os.cpu_count() or 1)
"""So many parts start at the same time."""
BUSY_SECONDS: Final = 10
"""A part that takes longer waits for something, or is OAP, and others may start beside it."""
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
    answers: bool = False
    """Also while supervisord still counts it as starting, which is a second at least."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def is_busy(self) -> bool:
        """Whether it still takes the CPU; one that hangs does not hold up the others."""
        return not self.answers and self.seconds < BUSY_SECONDS


class _News:
    """Says what is waited for: all the time on a terminal, now and then elsewhere."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console, self._status = console, status
        self._began, self._next_seconds = time.monotonic(), float(NEWS_SECONDS)

    def show(self, names: Sequence[str]) -> None:
        seconds = time.monotonic() - self._began
        line = f"waiting for {', '.join(names)} ({seconds:.0f} s)"
        self._status.update(line)
        if not self._console.is_terminal and seconds > self._next_seconds:
            self._console.print(line)
            self._next_seconds += NEWS_SECONDS


def start(console: Console, supervisor: Supervisor, settings: Settings, wanted: Sequence[Part]) -> None:
    """Start parts in their order, about as many side by side as there are cores, and wait for each.

    More at once would only take the CPU from the one that takes longest, which is OAP, the first.

    Raises:
        PartError: a part does not come up; the others are started all the same.
    """
    infos, exits = supervisor.infos(), supervisor.exits()

    def wait_for(part: Part) -> _Wait:
        return _Wait(part, len(exits.get(part.name, ())), Progress(supervisor.log_of(part.name)))

    waiting = [wait_for(part) for part in wanted if _is_alive(infos, part)]
    queue = deque(part for part in wanted if not _is_alive(infos, part))
    starting = {part.name for part in queue}
    if starting and not console.is_terminal:
        console.print(f"starting {', '.join(part.name for part in queue)}")
    with console.status("") as status:
        news = _News(console, status)
        while waiting or queue:
            for part in _next(queue, SIDE_BY_SIDE - sum(wait.is_busy for wait in waiting)):
                waiting.append(wait_for(part))
                _request_start(supervisor, part.name)
            news.show([*(wait.part.name for wait in waiting), *(part.name for part in queue)])
            exits, infos = supervisor.exits(), supervisor.infos()
            for wait in list(waiting):
                name = wait.part.name
                info = infos.get(name, {})
                # supervisord says RUNNING only a second after the start; who answers by then is up all the same.
                runs = info.get("statename") in {"STARTING", "RUNNING"} and info.get("pid", 0) > 0
                wait.answers = runs and answers(wait.part)
                if wait.answers:
                    after = f" after {wait.seconds:.1f} s" if name in starting else ""
                    console.print(f"{name} answers{after}")
                    waiting.remove(wait)
                elif reason := _failure(supervisor, settings, wait, info, exits.get(name, [])):
                    for part in _next(queue, len(queue)):
                        _request_start(supervisor, part.name)
                    raise PartError(name, reason, wait.progress.last_lines())
            if waiting or queue:
                time.sleep(LOOK_SECONDS)


def _next(queue: deque[Part], count: int) -> Iterator[Part]:
    """Take so many parts from a queue, or all that are left."""
    while queue and count > 0:
        yield queue.popleft()
        count -= 1


def _is_alive(infos: dict[str, dict[str, Any]], part: Part) -> bool:
    """Whether a part runs, or supervisord is about to start it."""
    return infos.get(part.name, {}).get("statename") in ALIVE_STATES


def _request_start(supervisor: Supervisor, name: str) -> None:
    """Tell supervisord to start a part."""
    with suppress(xmlrpc.client.Fault):  # started again by supervisord in between
        supervisor.rpc.startProcess(name, False)


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
