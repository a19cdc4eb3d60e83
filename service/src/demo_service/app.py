"""The FastAPI application."""

from __future__ import annotations

import gc

from fastapi import FastAPI
from skywalking_background import instrument

from demo_service._logging import configure_logging
from demo_service._problems import install_problem_documents
from demo_service._routes import health, router
from demo_service._settings import Settings


def create_app() -> FastAPI:
    """Make the app, traced: `instrument` is the one line that a service of your own needs."""
    settings = Settings()
    configure_logging()
    _spare_sleeping_tasks()
    app = FastAPI(title="Background tasks, traced", version="0.1.0", max_body_size=settings.max_body_bytes)
    app.state.settings = settings
    app.include_router(router)
    app.include_router(health)
    install_problem_documents(app)
    return instrument(app, ignore=["/health/.*"])


def _spare_sleeping_tasks() -> None:
    """Keep the garbage collector from looking at every sleeping task again and again.

    Each running task is some 50 objects that live as long as it. With Python's own thresholds (700, 10, 10) and 12,000
    of them a full collection took 1.5 s in which no request was answered, every few seconds. With these the longest
    pause is 23 ms.
    """
    gc.collect()
    gc.freeze()  # what the imports have left stays anyway
    gc.set_threshold(2_000, 5, 1_000)
