"""The work that all variants do: it sleeps, or it computes."""

from __future__ import annotations

import asyncio
import logging
import time
from enum import StrEnum

logger = logging.getLogger(__name__)


class Work(StrEnum):
    """What kind of work it is."""

    SLEEP = "sleep"
    """It waits, as for a mail server or a database."""
    CPU = "cpu"
    """It computes, as for a picture or a report."""


class Threads(StrEnum):
    """Whose threads work takes that blocks."""

    OWN = "own"
    """The tasks' own."""
    SHARED = "shared"
    """AnyIO's forty, which endpoints need that are no coroutines: while tasks have them all, those wait."""


def log(event: str, task: str) -> None:
    """Log what happens to a task."""
    logger.info("Background task %s: %s", event, task, extra={"task": task})


def log_failed_attempt(number: int, attempts: int, task: str, error: object) -> None:
    """Log that an attempt of a task failed, and how many it has."""
    logger.warning("Attempt %d of %d of %s failed: %s", number, attempts, task, error, extra={"attempt": number})


def compute(seconds: float) -> None:
    """Keep a core busy; in an event loop, nothing else happens meanwhile."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1_000))


def do(task: str, seconds: float, work: str = Work.SLEEP) -> None:
    """Do the work where it may block."""
    log("started", task)
    if work == Work.CPU:
        compute(seconds)
    else:
        time.sleep(seconds)
    log("completed", task)


async def wait_or_compute(seconds: float, work: str) -> None:
    """Do the work in an event loop."""
    if work == Work.CPU:
        compute(seconds)
    else:
        await asyncio.sleep(seconds)


async def do_in_loop(task: str, seconds: float, work: str = Work.SLEEP) -> None:
    """Do the work in an event loop, with its log lines."""
    log("started", task)
    await wait_or_compute(seconds, work)
    log("completed", task)
