"""The Docker engine: whether it can be used, and running its client."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

WAY_OUT: Final = "run the stack without Docker: `make up RUNTIME=native`"
TIMEOUT_SECONDS: Final = 20
"""How long the engine may take to answer."""


class EngineError(Exception):
    """Why Docker can't be used, and what to do about it."""

    def __init__(self, reason: str, advice: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {advice}, or {WAY_OUT}")


def check_engine() -> str:
    """Return the versions of the engine and of Compose.

    Raises:
        EngineError: there is no engine, it refuses this user, or it has no Compose.
    """
    try:
        engine = ask_docker("version", "--format", "{{.Server.Version}}")
    except subprocess.CalledProcessError as error:
        if "permission denied" in error.stderr.lower():
            advice = "add yourself to its group (`sudo usermod -aG docker $USER`, then log in again)"
            raise EngineError("you have no permission to use Docker's socket", advice) from error
        raise EngineError(f"no Docker engine answers ({last_line(error.stderr)})", "start it") from error
    try:
        compose = ask_docker("compose", "version", "--short")
    except subprocess.CalledProcessError as error:
        raise EngineError("Docker has no Compose here", "install its plugin (docker-compose-plugin)") from error
    return f"Docker {engine}, Compose {compose}"


def ask_docker(*words: str, environment: Mapping[str, str] | None = None, seconds: float = TIMEOUT_SECONDS) -> str:
    """Return what the client prints.

    Raises:
        EngineError: there is no client, or it takes longer than `seconds`.
        subprocess.CalledProcessError: the command fails.
    """
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            ["docker", *words],  # noqa: S607  # whichever the user has
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise EngineError("Docker is not installed", "install Docker Engine with Compose") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"the Docker engine does not answer within {seconds:g} s", "restart it") from error
    return done.stdout.strip()


def has_buildx() -> bool:
    """Whether the client can build with BuildKit."""
    try:
        ask_docker("buildx", "version")
    except subprocess.CalledProcessError:
        return False
    return True


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
