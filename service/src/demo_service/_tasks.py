"""The background tasks: each stands for slow work that no user should wait for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from demo_service._logging import task_id

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


def new_task_id() -> str:
    """Make the id that a task's log lines and its state go by."""
    return uuid4().hex


async def _sleep(task: str, seconds: float) -> None:
    token = task_id.set(task)
    try:
        logger.info("Background task started")
        await asyncio.sleep(seconds)
        logger.info("Background task completed")
    finally:
        task_id.reset(token)


async def background_sleep_task(task: str, seconds: float) -> None:
    """Sleep, as the overview's example does."""
    await _sleep(task, seconds)


async def long_running_task(task: str, seconds: float) -> None:
    """Pattern 1, fire and forget."""
    await _sleep(task, seconds)


async def task1(task: str, seconds: float) -> None:
    """Pattern 2, the first of three."""
    await _sleep(task, seconds)


async def task2(task: str, seconds: float) -> None:
    """Pattern 2, the second of three."""
    await _sleep(task, seconds)


async def task3(task: str, seconds: float) -> None:
    """Pattern 2, the third of three."""
    await _sleep(task, seconds)


async def process_data(task: str, data: Mapping[str, Any], seconds: float) -> None:
    """Pattern 3, a task with parameters; what is in the data stays out of the log."""
    logger.info("Processing %d fields", len(data), extra={"fields": len(data)})
    await _sleep(task, seconds)
