"""Stacks as the frames of a flame picture: each as wide as the share of samples in which it was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Frame:
    """One rectangle of the picture. Places are in samples, so that the picture's width is that of all of them."""

    function: str
    place: str
    """The file and the line, `jobs.py:30`."""
    left: int
    samples: int
    depth: int
    """0 is the outermost call."""
    sits: int
    """In how many samples it was the last: the line that a task sat in."""


@dataclass
class _Node:
    samples: int
    sits: int
    inner: dict[str, _Node]


def frames(stacks: Iterable[tuple[tuple[str, ...], int]]) -> list[Frame]:
    """Lay stacks out, those with the most samples first, callers before what they called.

    Args:
        stacks: each with its number of samples; the outermost call first, a line as `file.py:function:30`.
    """
    root = _Node(0, 0, {})
    for lines, samples in stacks:
        node = root
        for line in lines:
            node = node.inner.setdefault(line, _Node(0, 0, {}))
            node.samples += samples
        node.sits += samples
    found: list[Frame] = []
    _lay_out(root, 0, 0, found)
    return found


def _lay_out(node: _Node, left: int, depth: int, found: list[Frame]) -> None:
    for line, inner in sorted(node.inner.items(), key=lambda item: (-item[1].samples, item[0])):
        function, place = split(line)
        found.append(Frame(function, place, left, inner.samples, depth, inner.sits))
        _lay_out(inner, left, depth + 1, found)
        left += inner.samples


def split(line: str) -> tuple[str, str]:
    """Split `file.py:function:30` into the function and its place, `file.py:30`."""
    file, _, rest = line.partition(":")
    function, _, number = rest.rpartition(":")
    return (function, f"{file}:{number}") if function else (line, "")


@dataclass(frozen=True)
class TaskProfile:
    """What the tasks of one name were doing, as the service tells it."""

    task: str
    seconds: float
    rounds: int
    """How often it was looked."""
    tasks: int
    """How many tasks were seen."""
    stacks: tuple[tuple[tuple[str, ...], int], ...]
    waits: tuple[tuple[str, int], ...]
    """Lines in which tasks sat, each with its number of samples; the most seen first."""
    collapsed: str
    """The stacks as flame graph tools read them."""

    @property
    def samples(self) -> int:
        """How many stacks were seen, of all tasks in all rounds."""
        return sum(samples for _, samples in self.stacks)

    @classmethod
    def of(cls, answer: dict[str, Any]) -> TaskProfile:
        """Read the answer of `POST /profiles`.

        Raises:
            KeyError, TypeError, ValueError: it is not one.
        """
        return cls(
            task=str(answer["task"]),
            seconds=float(answer["seconds"]),
            rounds=int(answer["rounds"]),
            tasks=int(answer["tasks"]),
            stacks=tuple((tuple(map(str, one["lines"])), int(one["samples"])) for one in answer["stacks"]),
            waits=tuple((str(one["line"]), int(one["samples"])) for one in answer["waits"]),
            collapsed=str(answer["collapsed"]),
        )
