"""What the runner has noted of its guided incidents: `<run_dir>/incidents/<name>/run.json`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pathlib import Path


class Piece(BaseModel):
    """A part of a lane, in seconds since the first request of its side."""

    start: float
    end: float
    tone: str


class Lane(BaseModel):
    """One request or one task."""

    label: str
    trace_id: str
    pieces: list[Piece]


class Symptom(BaseModel):
    """What was read, and from which metric."""

    what: str
    value: float
    unit: str
    source: str


class Side(BaseModel):
    """What was seen with one setting."""

    setting: str
    service: str
    symptom: Symptom
    facts: dict[str, str]
    trace_id: str
    lanes: list[Lane]


class Played(BaseModel):
    """The last run of an incident, as far as it has come."""

    name: str
    began_at_ms: int
    state: Literal["running", "done", "failed"]
    step: str
    """What is happening, or why it could not go on."""
    pid: int
    before: Side | None
    after: Side | None


def last_run(run_dir: Path | None, name: str) -> Played | None:
    """Return the last run of an incident; `None` where there is none, or none that can be read."""
    if run_dir is None:
        return None
    try:
        run = Played.model_validate_json((run_dir / "incidents" / name / "run.json").read_bytes())
    except (OSError, ValidationError):
        return None
    if run.state == "running" and not _lives(run.pid):
        return run.model_copy(update={"state": "failed", "step": "it was ended before it was through"})
    return run


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
