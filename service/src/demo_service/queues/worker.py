"""`python -m demo_service worker`: a Celery worker with a pool of processes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from demo_service import ledger
from demo_service.collector import paused
from demo_service.logging import configure_logging
from demo_service.queues.health import serve_health

if TYPE_CHECKING:
    from demo_service.settings import Settings

logger = logging.getLogger(__name__)


def run_worker(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; what then runs gets `drain_seconds`, then it goes back to the broker.

    Raises:
        BrokerUnavailableError: no broker is set.
    """
    with paused():
        from celery import signals  # noqa: PLC0415

        from demo_service.queues.celery_app import declare_dead_queue, make_app  # noqa: PLC0415
        from demo_service.queues.celery_task import add_task  # noqa: PLC0415

    configure_logging()
    ledger.keep(settings.ledger_dir, "worker")
    app = make_app(settings)
    add_task(app, settings)
    ready = False

    @signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
    def keep_logging(**_: Any) -> None:  # noqa: ANN401
        """Leave logging as it is: Celery has its own otherwise."""

    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_ready(**_: Any) -> None:  # noqa: ANN401
        nonlocal ready
        ready = True
        if app.connection_for_read().transport.driver_type == "amqp":
            declare_dead_queue(app)
        logger.info("Celery worker is ready: %d processes", settings.worker_processes)

    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def on_shutdown(**_: Any) -> None:  # noqa: ANN401
        """Let it wait for what runs, but not for ever: SIGQUIT gives the rest back to the broker.

        Not Celery's "soft shutdown": that always takes its whole time, and acknowledges nothing meanwhile.
        """
        nonlocal ready
        ready = False
        timer = threading.Timer(settings.drain_seconds, os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()

    serve_health(settings, lambda: None if ready else "the worker has no broker, or is about to end")
    worker = app.Worker(
        concurrency=settings.worker_processes,
        hostname=f"worker-{os.getpid()}@{os.uname().nodename}",
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
