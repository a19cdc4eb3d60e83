"""The one place that touches the SkyWalking agent's life: its start, its plugins and its reporter."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Final

try:
    import skywalking.protocol.language_agent.Tracing_pb2  # noqa: F401
except ImportError as error:  # pragma: no cover  # depends on how the agent was installed
    _MESSAGE = (
        "this apache-skywalking has no `skywalking.protocol`: the wheel of 1.3.0 was published without it. "
        "Install it from source: pip install --no-binary apache-skywalking 'apache-skywalking>=1.3'"
    )
    raise ImportError(_MESSAGE) from error

import grpc
from skywalking import config
from skywalking.agent import agent
from starlette.middleware.exceptions import ExceptionMiddleware

from skywalking_background import _plugins, _segments
from skywalking_background._faults import note
from skywalking_background._ids import new_id
from skywalking_background._internals import plugins, use_context_class, use_ids, use_safe_values
from skywalking_background._reporter import Counts, Reporter

# Wraps the same requests as we do, and keeps their span open until the background tasks end.
_OWN_PLUGIN: Final = "sw_fastapi"

_lock = threading.Lock()
_reporter: Reporter | None = None
_off = False
logger = logging.getLogger("skywalking_background")


def start() -> None:
    """Start the agent once per process, without its FastAPI plugin and with our reporter.

    `instrument` does it; a worker process without an app calls it by itself, before it imports or registers its tasks.

    Raises:
        RuntimeError: somebody started the agent before, with its FastAPI plugin on.
    """
    global _reporter  # noqa: PLW0603  # as the agent itself: one per process
    with _lock:
        if _reporter is not None:
            return
        if agent.started_pid != os.getpid():
            config.agent_disable_plugins = [*config.agent_disable_plugins, _OWN_PLUGIN]
            if "SW_AGENT_LOGGING_LEVEL" not in os.environ:
                # It warns of each of some thirty packages that it could trace and that are not installed.
                config.agent_logging_level = "ERROR"
            if "SW_AGENT_PROFILE_ACTIVE" not in os.environ:
                # It samples the one thread that an endpoint runs on: of an event loop that says nothing.
                config.agent_profile_active = False
            # Its heartbeat and the like report an absent OAP at every try, with a stack trace: ours says it once.
            logging.getLogger("skywalking").addFilter(_is_no_absent_oap)
            plugins.install = _plugins.install
            agent.start()
        elif ExceptionMiddleware.__call__.__name__ == "_sw_fast_api":
            message = f"the agent runs with its FastAPI plugin: start it with SW_AGENT_DISABLE_PLUGINS={_OWN_PLUGIN}"
            raise RuntimeError(message)
        use_ids(new_id)
        use_context_class(_segments.Context)
        use_safe_values()
        if config.agent_protocol != "grpc":
            return  # the agent's own reporters for HTTP and Kafka stay
        _reporter = Reporter()
        # At the process's end it would start threads, which Python 3.12 refuses then; its queues are empty anyway.
        atexit.unregister(agent._SkyWalkingAgent__fini)  # noqa: SLF001
        agent._finished = _Patience()  # noqa: SLF001  # see there
        # The seam: all that the agent and its plugins finish passes here.
        agent.archive_segment = _reporter.segments.put
        # Else the agent leaves spans out uncounted while the queue is full; our queue counts what it refuses.
        agent.is_segment_queue_full = lambda: False
        agent.archive_log = _reporter.logs.put


def switch(*, on: bool | None) -> bool:
    """Say whether to trace in this process: as asked for, else as `SKYWALKING_BACKGROUND_ENABLED` says."""
    global _off  # noqa: PLW0603  # one switch per process
    if on is None:
        on = os.environ.get("SKYWALKING_BACKGROUND_ENABLED", "").strip().lower() not in {"false", "0", "no", "off"}
    _off = _off or not on
    return on


def tracing() -> bool:
    """Say whether spans reach anybody; without `start` one log line says that they don't."""
    global _off  # noqa: PLW0603
    if _reporter is not None:
        return True
    if not _off and switch(on=None):
        _off = True
        logger.warning("nothing is traced: call instrument(app), or start() in a process without an app")
    return False


def start_in_child() -> None:
    """Start in a process of a pool, whose parent traces; never raises."""
    try:
        start()
    except Exception:  # noqa: BLE001  # the pool's work goes on
        note("starting in a process of a pool")


class _Patience(threading.Event):
    """What the agent's threads wait on between two looks at their queues.

    They look 50 times a second, which costs an idle process 2 % of a core, and the queues of segments and logs stay
    empty for good. The others (heartbeat, meters, profiles) wait for a second or longer anyway.
    """

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else max(timeout, 1.0))


def _is_no_absent_oap(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], grpc.RpcError)


def flush(timeout: float = 5.0) -> bool:
    """Wait until all that was finished so far is with OAP; `False` when it took nothing for `timeout` seconds."""
    return _reporter is None or _reporter.flush(timeout)


def counts() -> dict[str, Counts]:
    """How many segments and logs were sent, are queued and were dropped since the start; empty before it."""
    return {} if _reporter is None else _reporter.counts()
