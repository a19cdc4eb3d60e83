"""The endpoints of the fault board: see, set and clear a rule by which faults strike a share of the requests."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Body, HTTPException, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from demo_service.http.control_routes import audit
from demo_service.http.problems import problems
from demo_service.http.query import NO_PARAMETERS
from demo_service.tasks import SYNTAX, Rule
from demo_service.tasks.fault_board import MOST_SECONDS

if TYPE_CHECKING:
    from demo_service.tasks import FaultBoard

router = APIRouter(responses=problems(422), dependencies=[NO_PARAMETERS])


def _whole(value: object) -> object:
    """Take 7.0 for 7, as JSON does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


FaultText = Annotated[str, StringConstraints(pattern=SYNTAX)]


class WantedRule(BaseModel):
    """A rule as it is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    faults: Annotated[list[FaultText], Field(min_length=1, max_length=20)]
    """As `X-Fault` has them; each as likely as the others."""
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    """Of the requests that start work; one that has an `X-Fault` of its own is left alone."""
    seconds: Annotated[float, Field(ge=1, le=MOST_SECONDS, allow_inf_nan=False)] = 60.0
    seed: Annotated[int, Field(ge=0, lt=2**53), BeforeValidator(_whole)] = 1
    """The same seed: the same requests are struck, by their order."""
    schedule: Literal["steady", "random"] = "steady"
    """`random`: one of the faults for 2 to 15 s, then none for as long, and so on."""


class RuleNow(WantedRule):
    """The rule that holds."""

    set_at: datetime
    ends_at: datetime


class BoardNow(BaseModel):
    """The fault board."""

    enabled: bool
    """Whether a rule can be set: `SERVICE_FAULTS_ENABLED`."""
    rule: RuleNow | None
    remaining_seconds: float
    now: list[str]
    """What may strike in this moment."""
    requests: int
    """Those that the rule has seen, in all processes of the service."""
    struck: int


@router.get("/faults")
async def faults(request: Request) -> BoardNow:
    """Show the rule that holds, and what it has done."""
    return _now(request.app.state.faults)


@router.put("/faults", responses=problems(400, 403, 413, 503))
async def set_faults(request: Request, wanted: Annotated[WantedRule, Body()]) -> BoardNow:
    """Let faults strike a share of the requests for a time, in the place of the rule before."""
    board: FaultBoard = request.app.state.faults
    if not board.enabled:
        raise HTTPException(403, "faults are switched off here; SERVICE_FAULTS_ENABLED=true allows them")
    rule = Rule(tuple(wanted.faults), wanted.share, wanted.seconds, wanted.seed, wanted.schedule, time.time())
    try:
        board.put(rule)
    except OSError as error:
        raise HTTPException(503, f"it can't be noted for the other processes: {error}") from error
    details = {"share": wanted.share, "seconds": wanted.seconds, "seed": wanted.seed, "schedule": wanted.schedule}
    audit(request, "set", "fault board", faults=", ".join(wanted.faults), **details)
    return _now(board)


@router.delete("/faults", responses=problems(503))
async def clear_faults(request: Request) -> BoardNow:
    """Let nothing strike any more."""
    board: FaultBoard = request.app.state.faults
    try:
        board.clear()
    except OSError as error:
        raise HTTPException(503, f"it can't be noted for the other processes: {error}") from error
    audit(request, "clear", "fault board")
    return _now(board)


def _now(board: FaultBoard) -> BoardNow:
    rule, moment = board.rule(), time.time()
    requests, struck = board.counts()
    if rule is None:
        return BoardNow(enabled=board.enabled, rule=None, remaining_seconds=0, now=[], requests=0, struck=0)
    shown = RuleNow(
        faults=list(rule.faults),
        share=rule.share,
        seconds=rule.seconds,
        seed=rule.seed,
        schedule=rule.schedule,
        set_at=datetime.fromtimestamp(rule.set_at, UTC),
        ends_at=datetime.fromtimestamp(rule.ends_at, UTC),
    )
    return BoardNow(
        enabled=board.enabled,
        rule=shown,
        remaining_seconds=round(max(0.0, rule.ends_at - moment), 1),
        now=list(rule.at(moment)),
        requests=requests,
        struck=struck,
    )
