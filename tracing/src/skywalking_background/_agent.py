"""The life of tracing in a process: its start, the processes forked from it, its end."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from skywalking_background import _life_events, _loop_lag, _meters, _running, _segments
from skywalking_background._faults import logger, note
from skywalking_background._fork import deliver_at_the_end, in_each_child, notice_fork, pass_signals_on
from skywalking_background._grpc import GrpcTransport
from skywalking_background._http import HttpTransport
from skywalking_background._internals import agent, bootstrap, check, config
from skywalking_background._kafka import KafkaTransport
from skywalking_background._log_tags import tag_with_task
from skywalking_background._meter_report import MeterReport
from skywalking_background._observers import Observers
from skywalking_background._reporter import Counts, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking.protocol.logging.Logging_pb2 import LogData


_SECONDS_UNTIL_RESCUE: Final = 1.0
"""A server has forked its first workers by then; a process that lives shorter leaves it to the next one."""
_SECONDS_OF_A_CHILD: Final = 5.0
"""How long the end of a child may wait for OAP."""

_lock = threading.Lock()
_reporter: Reporter | None = None
_observers: Observers | None = None
_meter_report: MeterReport | None = None
_send_events: Callable[[list[bytes]], object] | None = None
_off = False
"""Whether nothing is to be traced, or was said not to be."""


def switch(*, on: bool | None) -> bool:
    """Say whether to trace in this process: as asked for, else as `SKYWALKING_BACKGROUND_ENABLED` says."""
    global _off  # noqa: PLW0603  # one switch per process
    if on is None:
        on = os.environ.get("SKYWALKING_BACKGROUND_ENABLED", "").strip().lower() not in {"false", "0", "no", "off"}
    _off = _off or not on
    return on


def start() -> None:
    """Instrument this process once, without the agent's FastAPI plugin and with our reporter.

    `instrument` does it; a worker process without an app calls it by itself, before it imports or registers its tasks.
    There is no connection and no thread until the process has a first segment, log line or event, or its app starts,
    or, with a journal, another process has left something to close: it may be forked before, and after that too.
    With `SKYWALKING_BACKGROUND_ENABLED=false` nothing happens.

    Raises:
        RuntimeError: a setting that can't be served, or somebody started the agent before, with its FastAPI plugin on.
    """
    global _off  # noqa: PLW0603
    with _lock:
        if _reporter is not None or not switch(on=None):
            return
        try:
            check()
        except RuntimeError as change:
            _off = True
            logger.error("nothing is traced: %s", change)  # noqa: TRY400  # one sentence says it all
            return
        bootstrap.install(_segments.Context)
        _use_reporter(reached=False)
        _segments.when_something_waits(begin_reporting)
        _life_events.when_something_waits(begin_reporting)
        in_each_child(_begin_anew)
        atexit.register(_flush_at_exit)
        _close_what_others_left()


def _close_what_others_left() -> None:
    """Report even without anything of our own, where a process that was killed has left a journal; never raises."""
    try:
        if _observers is not None and _observers.finds_lost():
            rescue = threading.Timer(_SECONDS_UNTIL_RESCUE, begin_reporting)
            rescue.name = "skywalking-background-rescue"
            rescue.daemon = True
            rescue.start()
    except Exception:  # noqa: BLE001  # the journal stays, and the next start finds it
        note("looking for what other processes have left")


def start_in_child() -> None:
    """Start in a process of a pool, whose parent traces; never raises."""
    try:
        start()
    except Exception:  # noqa: BLE001  # the pool's work goes on
        note("starting in a process of a pool")


def tracing() -> bool:
    """Say whether spans reach anybody; without `start` one log line says that they don't."""
    global _off  # noqa: PLW0603
    if _reporter is not None:
        return True
    if not _off and switch(on=None):
        _off = True
        logger.warning("nothing is traced: call instrument(app), or start() in a process without an app")
    return False


def _use_reporter(*, reached: bool) -> None:
    """The seam: all that the agent and its plugins finish passes here."""
    global _reporter, _observers, _meter_report, _send_events  # noqa: PLW0603  # as the agent itself: one per process
    transport = _transport()
    _reporter = Reporter(
        transport,
        on_begin=_on_begin,
        on_first_round=_begin_threads,
        on_round=_on_round,
        reached=reached,
    )
    _send_events = None if isinstance(transport, KafkaTransport) else transport.send_events
    _observers = Observers(_reporter.segments, _reporter.logs, _send_events)
    _reporter.before_segments = _observers.before_delivery
    _running.watch_by(_observers.watches, begin_reporting)
    # OAP takes none over HTTP.
    if config.agent_meter_reporter_active and not isinstance(transport, HttpTransport):
        segments = _reporter.segments
        _meter_report = MeterReport(transport.send_meters, lambda: segments.counts, config.agent_meter_reporter_period)
    else:
        _meter_report = None
    _meters.switch(on=_meter_report is not None)
    agent.archive_segment = _reporter.segments.put
    # Else the agent leaves spans out uncounted while the queue is full; our queue counts what it refuses.
    agent.is_segment_queue_full = lambda: False
    agent.archive_log = _put_log


def _put_log(log: LogData) -> None:
    if notice_fork():  # before a segment's id does it
        log.serviceInstance = config.agent_instance_name  # the parent's until now
    if _reporter is not None:
        tag_with_task(log)
        _reporter.put_log(log)


def _transport() -> GrpcTransport | HttpTransport | KafkaTransport:
    if config.agent_protocol == "kafka":
        return KafkaTransport()
    if config.agent_protocol == "http":
        return HttpTransport(config.agent_collector_backend_services)
    return GrpcTransport(config.agent_collector_backend_services)


def _on_round() -> None:
    pass_signals_on()
    _segments.send_what_waits()
    if _observers is not None:
        _observers.look()
    _life_events.step(_send_events)
    if _meter_report is not None:
        _meter_report.step()


def app_starts() -> None:
    """Note that an app begins to serve; never raises."""
    _life_events.event("Start", f"process {os.getpid()} serves")
    begin_reporting()


def app_ends() -> None:
    """Note that an app serves no more, and deliver all there is; never raises."""
    _life_events.event("Shutdown", f"process {os.getpid()} serves no more")
    flush()


def begin_reporting() -> None:
    """Let an idle process appear in SkyWalking: begin now what else begins with its first segment.

    For the start of an app's lifespan, which runs after a server has forked its workers. Never raises.
    """
    try:
        _loop_lag.watch()
        if _reporter is not None:
            _reporter.begin()
    except Exception:
        logger.exception("process %d can't begin to report yet", os.getpid())


def _on_begin() -> None:
    deliver_at_the_end(_flush_child)
    if _observers is not None:
        _observers.start()


def _begin_threads() -> None:
    try:
        bootstrap.begin_threads()
    except Exception as error:
        # When a process ends, Python from 3.12 on starts no threads any more; nobody would miss them either.
        if not sys.is_finalizing() and "shutdown" not in str(error):
            logger.exception("process %d reports its segments, but neither heartbeat nor meters", os.getpid())


def _begin_anew() -> None:
    """In a forked process: empty queues, no locks of the parent's threads, no span of its requests."""
    global _lock  # noqa: PLW0603  # it may be held by a thread that is not here
    _lock = threading.Lock()
    if _reporter is None:
        return
    parent = _reporter
    if _observers is not None:
        _observers.forget()
    # Whatever else goes wrong: nothing that the parent has queued is sent by its child.
    _use_reporter(reached=parent.reached)
    _segments.forget_all()
    _meters.begin_anew()
    _life_events.forget_all()
    _loop_lag.forget_all()
    parent.transport.close()
    bootstrap.forget_parent()


def _flush_child() -> None:
    if _reporter is not None:
        _reporter.flush_at_exit(_SECONDS_OF_A_CHILD, _SECONDS_OF_A_CHILD)
        _send_rest()
    _close_observers()


def _flush_at_exit() -> None:
    if _reporter is not None:
        _reporter.flush_at_exit()
        _send_rest()
    _close_observers()


def _close_observers() -> None:
    if _observers is not None:
        _observers.close()


def _send_rest() -> None:
    if _reporter is not None and _reporter.delivers:
        _life_events.step(_send_events)
        if _meter_report is not None:
            _meter_report.send_rest()


def flush(timeout: float = 5.0) -> bool:
    """Wait until all that was finished so far is with OAP; `False` when it took nothing for `timeout` seconds.

    An OAP that was never there is not waited for: one try, 0.2 s.
    """
    done = _reporter is None or _reporter.flush(timeout)
    _send_rest()
    return done


def counts() -> dict[str, Counts]:
    """How many segments and logs were sent, are queued and were dropped in this process; empty before `start`."""
    return {} if _reporter is None else _reporter.counts()
