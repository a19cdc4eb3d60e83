"""The endpoints for alarms: OAP sends them here, the console shows them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from demo_service.alarms import Message
from demo_service.http.problems import problems
from demo_service.http.query import NO_PARAMETERS, Parameters

if TYPE_CHECKING:
    from demo_service.alarms import Alarms as Store

router = APIRouter(prefix="/alarms", responses=problems(422))

Messages = Annotated[list[Message], Field(max_length=1_000)]


class Alarm(BaseModel):
    """An alarm; one that goes on has not recovered."""

    rule: str
    name: str
    """What it is about, as OAP names it."""
    scope: str
    message: str
    level: str
    started_at: datetime
    recovered_at: datetime | None


class Alarms(BaseModel):
    """Alarms, the last to begin first."""

    alarms: list[Alarm]


class Sender(Parameters):
    """Who sends alarms, where no header can say it: OAP 10.1 sends none."""

    secret: Annotated[str, Field(max_length=200)] = ""


@router.get("", dependencies=[NO_PARAMETERS])
async def list_alarms(request: Request) -> Alarms:
    """Show the alarms that OAP has sent to this process."""
    store: Store = request.app.state.alarms
    return Alarms(
        alarms=[
            Alarm(
                rule=one.rule,
                name=one.name,
                scope=one.scope,
                message=one.message,
                level=one.level,
                started_at=datetime.fromtimestamp(one.started, UTC),
                recovered_at=None if one.recovered is None else datetime.fromtimestamp(one.recovered, UTC),
            )
            for one in store.newest()
        ]
    )


@router.post("", status_code=204, responses=problems(400, 403, 413))
async def take_alarms(
    request: Request,
    messages: Messages,
    sender: Annotated[Sender, Query()],
    authorization: Annotated[str | SkipJsonSchema[None], Header(max_length=300)] = None,
) -> Response:
    """Take alarms from OAP, which knows the secret."""
    expected = request.app.state.settings.alarm_secret
    given = sender.secret or (authorization or "").removeprefix("Bearer ")
    if not expected or not secrets.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise HTTPException(403, "alarms are taken from OAP only: its webhook and SERVICE_ALARM_SECRET must agree")
    request.app.state.alarms.take(messages)
    return Response(status_code=204)
