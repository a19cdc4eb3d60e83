"""What a played incident has shown: two sides, before and after the switch, as a JSON file that pages follow."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Tone = Literal["answer", "wait", "task", "failed", "refused", "lost", "crashed"]


@dataclass(frozen=True)
class Piece:
    """A part of a lane, in seconds since the first request of its side."""

    start: float
    end: float
    tone: Tone


@dataclass(frozen=True)
class Lane:
    """One request or one task, read back from its trace."""

    label: str
    trace_id: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Symptom:
    """What was read, and where."""

    what: str
    value: float
    unit: str
    source: str
    """`OAP`, as the expression of the metric."""

    def __str__(self) -> str:
        return f"{self.value:,.0f} {self.unit}"


@dataclass(frozen=True)
class Side:
    """What was seen with one setting."""

    setting: str
    service: str
    """Its name in SkyWalking."""
    symptom: Symptom
    facts: dict[str, str]
    """Further numbers, by what they are."""
    trace_id: str
    """The trace to look at."""
    lanes: tuple[Lane, ...]

    @property
    def seconds(self) -> float:
        """When the last piece ends."""
        return max((piece.end for lane in self.lanes for piece in lane.pieces), default=1.0)


@dataclass
class Record:
    """A run of an incident, as far as it has come."""

    name: str
    began_at_ms: int
    state: Literal["running", "done", "failed"] = "running"
    step: str = ""
    """What is happening, or why it could not go on."""
    pid: int = field(default_factory=os.getpid)
    """Of the process that plays it: a run whose process is gone was cut short."""
    before: Side | None = None
    after: Side | None = None

    def write(self, folder: Path) -> None:
        """Write `run.json`, in one step: a page that reads it never sees half of it."""
        new = folder / "run.json.new"
        new.write_text(json.dumps(asdict(self), indent=1))
        new.replace(folder / "run.json")
