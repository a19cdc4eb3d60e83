"""The FastAPI application."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi_offline import FastAPIOffline
from skywalking_background import instrument

from demo_service import collector, http, ledger
from demo_service.accepted import Journal, Level
from demo_service.alarms import Alarms
from demo_service.dead_letters import DeadLetter, Notifier
from demo_service.dead_letters.store import DeadLetters
from demo_service.drain import drain_first
from demo_service.logging import configure_logging
from demo_service.queues import Publisher
from demo_service.settings import Settings
from demo_service.tasks import FaultBoard, LooseTasks, Recovery, Room, process_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI


def create_app() -> FastAPI:
    """Make the app, traced: `instrument` is the one line that a service of your own needs."""
    settings = Settings()
    configure_logging()
    collector.spare_sleeping_tasks()
    folder = settings.data_dir.absolute() / "accepted"
    journal = None if settings.journal is Level.OFF else Journal(folder, settings.journal)
    if journal is not None:  # the spans of what is killed, too
        os.environ.setdefault("SKYWALKING_BACKGROUND_JOURNAL", str(settings.data_dir.absolute() / "running"))
    letters = DeadLetters(settings, journal.forget if journal is not None else lambda _id: None)
    notifier = Notifier(settings, partial(http.trace_url, settings.trace_url))

    def bury(letter: DeadLetter) -> None:
        letters.put(letter)
        notifier.put(letter)

    ledger.keep(settings.ledger_dir, "service")
    process_pool.configure(settings.pool_processes, settings.ledger_dir)
    room = Room(settings, bury, journal)
    recovery = Recovery(folder, journal.path, room, letters, notifier.put) if journal is not None else None
    loose_tasks = LooseTasks(settings.max_running)
    publisher = Publisher(settings)
    alarms = Alarms(settings)
    descriptors = http.Descriptors(settings.spare_descriptors)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        room.gates.start()
        room.orders.start()
        if recovery is not None:
            recovery.start()
        with drain_first(room.drain):
            yield {"settings": settings, "descriptors": descriptors}  # what `LimitedProtocol` needs
        if recovery is not None:
            recovery.stop()
        await room.close()
        await loose_tasks.close()
        await asyncio.to_thread(process_pool.close)
        await publisher.close()
        await letters.close()
        if journal is not None:
            await asyncio.to_thread(journal.close)
        await notifier.close()
        await alarms.close()
        app.state.faults.close()

    # As FastAPI, but `/docs` and `/redoc` load from here, and nothing from elsewhere.
    app = FastAPIOffline(title="Background tasks, traced", version=version("skywalking-background"), lifespan=lifespan)
    app.state.settings = settings
    app.state.room = room
    app.state.loose_tasks = loose_tasks
    app.state.publisher = publisher
    app.state.letters = letters
    app.state.alarms = alarms
    app.state.descriptors = descriptors
    app.state.idempotency = http.Idempotency(settings.idempotency_seconds, settings.idempotency_keys)
    _add_http(app, settings, room)
    return instrument(app, ignore=["/health/.*", "/static-offline-docs/.*"])


def _add_http(app: FastAPI, settings: Settings, room: Room) -> None:
    """Add what answers requests, and what stands before it."""
    app.state.faults = FaultBoard(settings.data_dir.absolute() / "faults", enabled=settings.faults_enabled)
    app.include_router(http.work_router)
    app.include_router(http.router)
    app.include_router(http.task_router)
    app.include_router(http.control_router)
    app.include_router(http.alarm_router)
    app.include_router(http.profile_router)
    app.include_router(http.fault_router)
    app.include_router(http.health)
    app.add_middleware(http.AbandonUnstarted, kept=room.kept)
    app.add_middleware(http.Refusals, max_body_bytes=settings.max_body_bytes, body_seconds=settings.body_seconds)
    app.add_middleware(http.Guard, allowed_hosts=settings.allowed_hosts)
    http.install_problem_documents(app)
