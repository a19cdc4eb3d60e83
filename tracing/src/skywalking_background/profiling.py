"""What the tasks of one name are doing, or waiting for: their stacks, looked at again and again for some seconds.

The agent's own profiler looks at the stack of a thread, and an event loop's thread says nothing about the tasks that
wait in it. Here each asyncio task is followed through its coroutines down to the `await` that it sits in.

Nothing of it runs unless `sample` does. Then a thread looks 20 times a second at up to 50 tasks, which takes 2 % of a
core (measured with 2,000 that wait).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from skywalking_background import _loop_lag, _meters
from skywalking_background._names import task_name

if TYPE_CHECKING:
    from types import FrameType

    from skywalking_background._internals import Span

__all__ = ["Profile", "sample"]

TASKS_MAX: Final = 50
"""Tasks that are looked at in each round."""
DEPTH_MAX: Final = 100
_ABOVE: Final = ("_tasks.py:_trace_class.<locals>.traced:", "background.py:BackgroundTask")
"""Lines from which on a stack is the task's own: ours around it, or Starlette's that calls it."""


@dataclass
class Profile:
    """What was seen."""

    rounds: int = 0
    """How often it was looked."""
    tasks: int = 0
    """How many tasks were seen, at least once."""
    stacks: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """How often each stack was seen, of all tasks together; the outermost call first, as `file.py:function:line`."""

    @property
    def waits(self) -> Counter[str]:
        """How often tasks sat in each place, which is the last line of their own code that led there."""
        found: Counter[str] = Counter()
        for stack, times in self.stacks.items():
            found[stack[-1]] += times
        return found

    def collapsed(self) -> str:
        """Write it as flame graph tools read it: a line for each stack, `outer;inner number`."""
        return "\n".join(f"{';'.join(stack)} {times}" for stack, times in self.stacks.most_common())


def sample(task: str, seconds: float = 5.0, per_second: float = 20.0) -> Profile:
    """Look at the tasks of one name that run meanwhile; call it in a thread, it takes so long.

    Args:
        task: the task's name, as SkyWalking shows it; without the `SKYWALKING_BACKGROUND_TASK_PREFIX` is right too.
        seconds: how long to look.
        per_second: how often.

    Raises:
        RuntimeError: tasks are not metered in this process, so nobody knows which run.
    """
    if not _meters.enabled:
        message = "tasks are found by their meters, which are off: SKYWALKING_BACKGROUND_METERS, or start() is missing"
        raise RuntimeError(message)
    profile, seen = Profile(), set()
    end = time.monotonic() + seconds
    tasks: dict[int, asyncio.Task[Any]] = {}
    while time.monotonic() < end:
        spans = _meters.running(task, TASKS_MAX) or _meters.running(task_name(task), TASKS_MAX)
        frames = sys._current_frames()  # noqa: SLF001  # documented
        if any(span.strand not in tasks and span.strand not in frames for span in spans):
            tasks = _loop_lag.tasks()
        for span in spans:
            stack = _stack_of(span, tasks, frames)
            if stack:
                seen.add(id(span))
                profile.stacks[stack] += 1
        profile.rounds += 1
        time.sleep(max(0.0, min(1 / per_second, end - time.monotonic())))
    profile.tasks = len(seen)
    return profile


def _stack_of(span: Span, tasks: dict[int, asyncio.Task[Any]], frames: dict[int, FrameType]) -> tuple[str, ...]:
    task = tasks.get(span.strand)
    if task is None:  # in a thread of its own, or begun since the last look
        return tuple(_thread_stack(frames.get(span.strand)))
    stack = _task_stack(task, frames, 0)
    own = max((number for number, line in enumerate(stack) if line.startswith(_ABOVE)), default=-1)
    return tuple(stack[own + 1 :])  # without the server's and the framework's


def _task_stack(task: asyncio.Task[Any], frames: dict[int, FrameType], depth: int) -> list[str]:
    """Follow a task through its coroutines, and on into the task that it waits for.

    It ends at an `async for`: Python does not tell which generator that waits for.
    """
    stack: list[str] = []
    at: Any = task.get_coro()
    while at is not None and len(stack) < DEPTH_MAX:
        kind = "cr" if hasattr(at, "cr_frame") else "gi"
        frame = getattr(at, f"{kind}_frame", None)
        if frame is None:
            break
        stack.append(_line(frame))
        if getattr(at, f"{kind}_running"):  # at this moment: what it has called is on its thread's stack
            return stack + _called_from(frame, frames)
        at = at.cr_await if kind == "cr" else at.gi_yieldfrom
    waiter = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task) and depth < DEPTH_MAX:
        stack += _task_stack(waiter, frames, depth + len(stack) + 1)
    return stack


def _called_from(outer: FrameType, frames: dict[int, FrameType]) -> list[str]:
    for frame in frames.values():
        lines: list[str] = []
        inner: FrameType | None = frame
        while inner is not None and inner is not outer:
            lines.append(_line(inner))
            inner = inner.f_back
        if inner is outer:
            return lines[::-1]
    return []


def _thread_stack(frame: FrameType | None) -> list[str]:
    lines: list[str] = []
    while frame is not None and len(lines) < DEPTH_MAX:
        lines.append(_line(frame))
        frame = frame.f_back
    return lines[::-1]


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f"{PurePath(code.co_filename).name}:{code.co_qualname}:{frame.f_lineno}"
