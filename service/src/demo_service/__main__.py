"""The service's commands: `python -m demo_service [serve|worker|consumer]`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from demo_service.collector import paused

if TYPE_CHECKING:
    from fastapi import FastAPI

    from demo_service.settings import Settings

COMMANDS: Final = ("serve", "worker", "consumer")


def main() -> int:
    """Run a command until SIGTERM or SIGINT; without a name, `serve`.

    Returns:
        The exit code; 2 if the command can't run as it was started.
    """
    command = sys.argv[1] if len(sys.argv) > 1 else "serve"
    if command not in COMMANDS or len(sys.argv) > 2:  # noqa: PLR2004  # the name and the command
        sys.stderr.write(f"usage: python -m demo_service [{'|'.join(COMMANDS)}]\n")
        return 2
    # Imported by each command: a process of a pool imports this module too, and needs none of it.
    with paused():
        from pydantic import ValidationError  # noqa: PLC0415

        from demo_service.settings import Settings  # noqa: PLC0415

    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_context=False, include_url=False):
            name, reason = "_".join(map(str, problem["loc"])).upper(), problem["msg"].removeprefix("Value error, ")
            sys.stderr.write(f"demo_service: {reason if name in reason else f'SERVICE_{name}: {reason}'}\n")
        return 2
    if command == "serve":
        return _serve(settings)
    with paused():
        from demo_service.queues import BrokerUnavailableError, run_consumer, run_worker  # noqa: PLC0415

    try:
        return run_worker(settings) if command == "worker" else run_consumer(settings)
    except BrokerUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def make_app() -> FastAPI:
    """Make the app, in this process or in each of uvicorn's workers."""
    with paused():
        from demo_service.app import create_app  # noqa: PLC0415

        return create_app()


def _serve(settings: Settings) -> int:
    with paused():
        import uvicorn  # noqa: PLC0415

        from demo_service.http import LimitedProtocol  # noqa: PLC0415

    uvicorn.run(
        "demo_service.__main__:make_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=LimitedProtocol,
        ws="none",  # no endpoint is one
        timeout_keep_alive=settings.keep_alive_seconds,
        log_config=None,  # the app configures logging: one format, with the trace id, for uvicorn's lines too
        access_log=False,  # SkyWalking is the access log
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_worker_healthcheck=60,  # of 5 s, a worker of a busy machine is killed while it starts
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
