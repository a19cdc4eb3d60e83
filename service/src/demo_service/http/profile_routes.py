"""The endpoint that says what the tasks of one name are waiting for."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, Field
from skywalking_background import profiling

from demo_service.http.problems import problems
from demo_service.http.query import Parameters

router = APIRouter(responses=problems(422))

STACKS_MAX: Final = 500
_busy: Final = asyncio.Semaphore(1)


class WantedProfile(Parameters):
    """Whose stacks are looked at, and for how long."""

    task: Annotated[str, Field(min_length=1, max_length=150, description="The task's name.")]
    seconds: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = 5.0


class Stack(BaseModel):
    """One stack, the outermost call first, as `file.py:function:line`."""

    lines: list[str]
    samples: int


class Wait(BaseModel):
    """A line in which tasks sat."""

    line: str
    samples: int


class Profile(BaseModel):
    """What the tasks of one name were doing; the most seen first."""

    task: str
    seconds: float
    rounds: int
    tasks: int
    stacks: list[Stack]
    waits: list[Wait]
    collapsed: str
    """The stacks as flame graph tools read them."""


@router.post("/profiles", responses=problems(400, 403, 409, 413))
async def profile_task(request: Request, wanted: Annotated[WantedProfile, Query()]) -> Profile:
    """Look at the stacks of the running tasks of one name for some seconds."""
    if not request.app.state.settings.profiling_enabled:
        raise HTTPException(403, "profiling is switched off here; SERVICE_PROFILING_ENABLED=true allows it")
    if _busy.locked():
        raise HTTPException(409, "a profile is being made already: wait for it to end")
    async with _busy:
        try:
            found = await asyncio.to_thread(profiling.sample, wanted.task, wanted.seconds)
        except RuntimeError as error:
            raise HTTPException(409, str(error)) from error
    stacks = found.stacks.most_common(STACKS_MAX)
    return Profile(
        task=wanted.task,
        seconds=wanted.seconds,
        rounds=found.rounds,
        tasks=found.tasks,
        stacks=[Stack(lines=list(lines), samples=times) for lines, times in stacks],
        waits=[Wait(line=line, samples=times) for line, times in found.waits.most_common(STACKS_MAX)],
        collapsed="\n".join(f"{';'.join(lines)} {times}" for lines, times in stacks),
    )
