"""The FastAPI application."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi_offline import FastAPIOffline
from skywalking_background import instrument

from demo_service import http
from demo_service.alarms import Alarms
from demo_service.dead_letters import DeadLetter, DeadLetters, Notifier
from demo_service.drain import drain_first
from demo_service.logging import configure_logging
from demo_service.settings import Settings
from demo_service.tasks import Room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI


def create_app() -> FastAPI:
    """Make the app, traced: `instrument` is the one line that a service of your own needs."""
    settings = Settings()
    configure_logging()
    _spare_sleeping_tasks()
    letters = DeadLetters(settings)
    notifier = Notifier(settings, partial(http.trace_url, settings.trace_url))

    def bury(letter: DeadLetter) -> None:
        letters.put(letter)
        notifier.put(letter)

    room = Room(settings, bury)
    alarms = Alarms(settings)
    descriptors = http.Descriptors(settings.spare_descriptors)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        with drain_first(room.drain):
            yield {"settings": settings, "descriptors": descriptors}  # what `LimitedProtocol` needs
        await room.close()
        await letters.close()
        await notifier.close()
        await alarms.close()

    # As FastAPI, but `/docs` and `/redoc` load from here, and nothing from elsewhere.
    app = FastAPIOffline(title="Background tasks, traced", version="0.1.0", lifespan=lifespan)
    app.state.settings = settings
    app.state.room = room
    app.state.letters = letters
    app.state.alarms = alarms
    app.state.descriptors = descriptors
    app.state.idempotency = http.Idempotency(settings.idempotency_seconds, settings.idempotency_keys)
    app.include_router(http.router)
    app.include_router(http.task_router)
    app.include_router(http.alarm_router)
    app.include_router(http.profile_router)
    app.include_router(http.health)
    app.add_middleware(http.AbandonUnstarted)
    app.add_middleware(http.Refusals, max_body_bytes=settings.max_body_bytes, body_seconds=settings.body_seconds)
    app.add_middleware(http.Guard, allowed_hosts=settings.allowed_hosts)
    http.install_problem_documents(app)
    return instrument(app, ignore=["/health/.*", "/static-offline-docs/.*"])


def _spare_sleeping_tasks() -> None:
    """Keep the garbage collector from looking at every sleeping task again and again.

    Each running task is some 50 objects that live as long as it. With Python's own thresholds (700, 10, 10) and 12,000
    of them a full collection took 1.5 s in which no request was answered, every few seconds. With these the longest
    pause is 23 ms.
    """
    gc.collect()
    gc.freeze()  # what the imports have left stays anyway
    gc.set_threshold(2_000, 5, 1_000)
