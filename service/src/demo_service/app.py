"""The FastAPI application."""

from __future__ import annotations

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
    app = FastAPI(title="Background tasks, traced", version="0.1.0", max_body_size=settings.max_body_bytes)
    app.state.settings = settings
    app.include_router(router)
    app.include_router(health)
    install_problem_documents(app)
    return instrument(app, ignore=["/health/.*"])
