"""Run the service: `python -m demo_service`."""

import uvicorn

from demo_service.http import LimitedProtocol
from demo_service.settings import Settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; running background tasks end first."""
    settings = Settings()
    uvicorn.run(
        "demo_service.app:create_app",
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
        server_header=False,
    )


if __name__ == "__main__":
    main()
