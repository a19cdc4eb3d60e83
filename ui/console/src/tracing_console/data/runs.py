"""What the runner notes in its folder: `incidents/<name>/run.json`, and `compare/progress.json` of `make crash`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError
from tracing_claims.variants import Fault  # pydantic reads it

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


class LostTrace(BaseModel):
    """A trace without a good end of its work."""

    id: str
    failed: bool
    """Whether SkyWalking shows the work as failed."""


class Crash(BaseModel):
    """The last fault of a variant, as far as it has come; `None` is what is not known yet."""

    variant: str
    fault: Fault
    requests: int
    pid: int
    step: str
    ended: bool
    error: str
    """Why it could not go on."""
    refused: int | None
    accepted: int
    done: int
    done_twice: int
    dead: int
    open: int
    lost: int | None
    shown: int | None
    """Those of the lost that SkyWalking shows as failed."""
    traces: list[LostTrace]


def last_crash(run_dir: Path | None) -> Crash | None:
    """Return the last run of `make crash`; `None` where there is none, or none that can be read."""
    if run_dir is None:
        return None
    try:
        run = Crash.model_validate_json((run_dir / "compare" / "progress.json").read_bytes())
    except (OSError, ValidationError):
        return None
    if not run.ended and not _lives(run.pid):
        return run.model_copy(update={"ended": True, "error": "it was ended before it was through"})
    return run


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
