"""The service's settings, all from `SERVICE_*` environment variables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What can be set from outside; tracing has its own `SW_AGENT_*` variables."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share the requests; each has tasks of its own, and is an instance of its own in SkyWalking."""
    task_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0
    """How long a background task sleeps: it stands for the slow work (mail, report, upload) that nobody waits for."""
    drain_seconds: Annotated[int, Field(ge=1)] = 25
    """How long running tasks may go on after SIGTERM: above the longest task that `duration` allows by default."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 64 * 1024
