"""Delivery to OAP: in batches, acknowledged, kept while OAP is away.

The agent's own reporter streams one message per segment and forgets it as it hands it to gRPC: what was under way when
OAP went away is lost, and a full queue drops in silence. Here a batch leaves the queue when OAP has acknowledged it,
and whatever does not fit is counted. One call per batch also costs a fraction of the CPU.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection
from skywalking.protocol.logging.Logging_pb2 import LogData

from skywalking_background._encoding import encode_log, encode_segment
from skywalking_background._failures import DeliveryError, RefusedError, TimedOutError, UnreachableError, UnwelcomeError
from skywalking_background._faults import logger
from skywalking_background._grpc import GrpcTransport
from skywalking_background._internals import config
from skywalking_background._lane import Counts, Lane
from skywalking_background._life_events import event

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Counts", "Lane", "Reporter", "Transport", "encode_segment"]


INTERVAL: Final = 0.25  # seconds between two looks at what there is to do
SPACING: Final = 1.0  # seconds between two deliveries under load: a call costs as much CPU as a hundred spans
RETRY_MAX: Final = 5.0  # seconds: the longest wait before OAP is tried again
RETRY_FLUSHING: Final = 0.25  # seconds: the wait while somebody waits for the delivery
RETRY_ASIDE_FLUSHING: Final = 1.0  # seconds: likewise, for what was refused
OWN_THREADS: Final = "skywalking-background-"  # how their names begin: what is logged there is not delivered
FIRST_CONTACT = 0.2  # seconds that a flush gives an OAP that this process has never reached


class Transport(Protocol):
    """A way to OAP. Each `send` raises a `DeliveryError` when OAP has not acknowledged the batch."""

    def introduce(self) -> None:
        """Tell OAP of this instance: of segments without an entry span it learns no service."""

    def send_segments(self, batch: list[bytes]) -> None:
        """Send collections of segments."""

    def send_logs(self, batch: list[bytes]) -> None:
        """Send log lines."""

    def close(self) -> None:
        """Let go of the connection."""


class Reporter:
    """A thread that delivers segments and logs to OAP until the process ends; the first of them starts it.

    Args:
        transport: the way to OAP.
        on_begin: called once, by whoever finishes this process's first segment or log line.
        on_first_round: called once, in the reporter's thread, when the first delivery was tried.
        on_round: called in that thread before each delivery.
        reached: whether OAP is known to be there, by the process that this one was forked from.
    """

    def __init__(
        self,
        transport: Transport | None = None,
        on_begin: Callable[[], None] = lambda: None,
        on_first_round: Callable[[], None] = lambda: None,
        on_round: Callable[[], None] = lambda: None,
        *,
        reached: bool = False,
    ) -> None:
        self.address: str = config.agent_collector_backend_services
        if config.agent_protocol == "kafka":
            self.address = f"the other end of Kafka, {config.kafka_bootstrap_servers},"
        self.reached = reached
        self.transport = transport or GrpcTransport(self.address)
        self._on_begin = on_begin
        self._on_first_round = on_first_round
        self._on_round = on_round
        self.before_segments: Callable[[], object] = bool
        """Called before each batch of segments is sent."""
        self.segments = Lane(
            "segments",
            config.agent_trace_reporter_max_buffer_size,
            encode=encode_segment,
            send=self._send_segments,
            describe=_describe_segment,
            begin=self.begin,
        )
        self.logs = Lane(
            "logs",
            config.agent_log_reporter_max_buffer_size,
            encode=encode_log,
            send=self.transport.send_logs,
            describe=_describe_log,
            begin=self.begin,
        )
        self.lanes = (self.segments, self.logs)
        # Reentrant, as a signal's handler may want to flush while its thread is in here.
        self._changed = threading.Condition(threading.RLock())
        self._delivering = threading.RLock()
        self._thread: threading.Thread | None = None
        self._speaking = threading.local()
        self._begun = False
        self._try_again = self._taken_at = 0.0  # as of `time.monotonic()`; the latter: when OAP took something
        self._wanted = False  # somebody waits for a delivery
        self._started = 0  # rounds
        self._failed_round = self._idle_round = -1  # the last one that failed, that had nothing left to try
        self._aside_tried = 0.0  # as of `time.monotonic()`
        self._troubles: dict[str, float] = {}  # what was said, and when it began
        self._gave_up_with: dict[str, Counts] | None = None  # the last flush, and it was said
        self._introduced = False
        self._met = False  # OAP has answered, though nothing was to be delivered

    # What the request's path does.

    def begin(self) -> bool:
        """Start the thread, if it isn't yet; `False` when it can't be now."""
        with self._changed:
            if self._begun and (self._thread is None or self._thread.is_alive()):
                return self._thread is not None
            now = time.monotonic()
            if now < self._try_again:
                return False
            self._try_again = now + RETRY_MAX
            first, self._begun = not self._begun, True
            thread = threading.Thread(target=self._run, name=f"{OWN_THREADS}reporter", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # Since Python 3.12 none starts when the process ends: then `flush` delivers by itself.
                self._begun = False
                if not sys.is_finalizing() and "shutdown" not in str(error):
                    self._complain("thread", "the reporter's thread can't start (%s): what it would send waits", error)
                return False
            self._thread = thread
        if first:
            self._on_begin()
        return True

    def put_log(self, log: LogData) -> None:
        """Queue a log line, unless it is about the delivery itself: one that OAP refuses would cause the next."""
        if not getattr(self._speaking, "now", False) and not threading.current_thread().name.startswith(OWN_THREADS):
            self.logs.put(log)

    # What everybody may ask.

    def counts(self) -> dict[str, Counts]:
        """Count each lane's items by what became of them."""
        return {lane.name: lane.counts for lane in self.lanes}

    def flush(self, timeout: float = 5.0, first_contact: float | None = None) -> bool:
        """Deliver all that is queued; `False`, and a line in the log, when OAP takes nothing for `timeout` seconds.

        An OAP that this process has never reached gets one try, and `first_contact` seconds (`FIRST_CONTACT`) for it.
        """
        if first_contact is None:
            first_contact = FIRST_CONTACT
        goals = [(lane, lane.settled + lane.counts.queued) for lane in self.lanes]
        if all(lane.has_settled(goal) for lane, goal in goals):
            return True
        began = time.monotonic()
        done = self._wait(goals, timeout, first_contact) if self._runs() else self._deliver_here(goals, timeout)
        self._gave_up_with = None if done else self.counts()
        if not done:
            self._say("OAP at %s took nothing for %.1f s: %s", self.address, time.monotonic() - began, self._describe())
        return done

    def flush_at_exit(self, timeout: float = 5.0, first_contact: float = 2.0) -> None:
        """Deliver what is queued as the process ends; an OAP that took nothing a moment ago is not waited for again."""
        if self._gave_up_with is None:
            self.flush(timeout, first_contact)
        elif self._gave_up_with != self.counts():
            self.flush(0.0, 0.0)

    @property
    def delivers(self) -> bool:
        """Whether OAP took what was last sent to it."""
        return self.reached and not self._troubles and self._gave_up_with is None

    def _runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self, goals: list[tuple[Lane, int]], timeout: float, first_contact: float) -> bool:
        """Wait for the thread to deliver."""
        with self._changed:
            first = self._started
            since, before = time.monotonic(), self._settled()
            self._want()
            while not all(lane.has_settled(goal) for lane, goal in goals):
                now = time.monotonic()
                if (settled := self._settled()) != before:
                    since, before = now, settled
                patience = timeout if self.reached else min(timeout, first_contact)
                tried = self._failed_round > first and not self.reached
                if self._idle_round > first:
                    return not any(lane.stuck for lane, _ in goals)  # what came later is not waited for
                if tried or now >= since + patience:
                    return False
                self._changed.wait(min(RETRY_FLUSHING, since + patience - now))
                if time.monotonic() >= now + RETRY_FLUSHING:
                    self._want()
        return True

    def _deliver_here(self, goals: list[tuple[Lane, int]], timeout: float) -> bool:
        """Deliver in this thread: the other one could not start, or has died."""
        deadline = time.monotonic() + timeout
        while True:
            failed = self._round(wanted=True) is not None
            if all(lane.has_settled(goal) for lane, goal in goals):
                return True
            if not (failed and self.reached) or time.monotonic() >= deadline:
                return False
            time.sleep(RETRY_FLUSHING)

    def _want(self) -> None:
        self._wanted = True
        self._changed.notify_all()

    def _settled(self) -> list[int]:
        return [lane.settled for lane in self.lanes]

    # What the thread does.

    def _run(self) -> None:
        wait = INTERVAL
        error: Exception | None = None
        first = True
        while True:
            with self._changed:
                wanted = self._changed.wait_for(lambda: self._wanted, wait)
                self._wanted = False
            try:
                self._on_round()
                if wanted or error is not None or self._is_due():
                    error = self._round(wanted=wanted)
            except Exception:  # noqa: BLE001  # whatever it is, the thread goes on, and so does the delivery
                self._complain(
                    "reporter", "the delivery to OAP at %s failed, and is tried again", self.address, exc_info=True
                )
                error = RuntimeError()
            wait = INTERVAL if error is None else min(RETRY_MAX, max(1.0, wait * 2))
            if first:
                first = False
                self._on_first_round()

    def _is_due(self) -> bool:
        """Say whether to deliver now: at once after a pause, and what fills a batch."""
        return time.monotonic() >= self._taken_at + SPACING or any(lane.fills_a_batch for lane in self.lanes)

    def _round(self, *, wanted: bool) -> Exception | None:
        """Deliver until nothing is left or something fails, and return what failed."""
        with self._delivering:
            with self._changed:
                self._started += 1
                number = self._started
            now = time.monotonic()
            if now >= self._aside_tried + (RETRY_ASIDE_FLUSHING if wanted else RETRY_MAX):
                self._aside_tried = now
                for lane in self.lanes:
                    lane.retry()
            error = self._introduce() or self._drain()
            with self._changed:
                if error is None:
                    self._idle_round = number
                else:
                    self._failed_round = number
                self._changed.notify_all()
            return error

    def _drain(self) -> Exception | None:
        """Deliver a batch of each lane in turn until none has one, or OAP is not there."""
        error: Exception | None = None
        lanes = list(self.lanes)
        taking = {"OAP"} if self._met else set()
        self._met = False
        while lanes:
            for lane in list(lanes):
                try:
                    more = lane.step()
                except Exception as failure:  # noqa: BLE001  # said, and tried again
                    error, more = failure, False
                    taking.discard(lane.name)
                    self._failed(lane, failure)
                if more:
                    taking.add(lane.name)
                    self._succeeded()
                else:
                    lanes.remove(lane)
                if isinstance(error, UnreachableError):
                    return error
        self._recovered(taking)
        return error

    def _send_segments(self, batch: list[bytes]) -> None:
        self.before_segments()
        self.transport.send_segments(batch)

    def _introduce(self) -> Exception | None:
        """Have this process appear in SkyWalking, even if it ends before the agent's first heartbeat."""
        if self._introduced:
            return None
        try:
            self.transport.introduce()
        except UnreachableError as error:
            self._failed(self.segments, error)
            return error
        except DeliveryError:
            pass  # the agent's heartbeat tries it again and again
        else:
            self.reached = True
        self._introduced = self._met = True
        return None

    def _failed(self, lane: Lane, error: Exception) -> None:
        self.reached = self.reached or isinstance(error, RefusedError)
        if isinstance(error, UnreachableError):
            text = f"OAP at %s is not reachable (%s): up to {self.segments.limit} segments are kept until it is back"
            self._complain("OAP", text, self.address, error)
        elif isinstance(error, TimedOutError):
            text = f"OAP at %s is connected but slow, a batch of {lane.name} got %s: it is kept and sent again"
            self._complain(lane.name, text, self.address, error)
        elif isinstance(error, UnwelcomeError):
            text = f"OAP at %s does not accept the {lane.name} of this process (%s): they are kept: correct the setting"
            self._complain(lane.name, text, self.address, error)
        elif isinstance(error, RefusedError):
            text = f"OAP at %s refuses all {lane.name} (%s): they are kept and sent again"
            self._complain(lane.name, text, self.address, error)
        else:
            text = f"the {lane.name} can't be sent to OAP at %s, they are kept and sent again: %r"
            self._complain(lane.name, text, self.address, error, exc_info=error)

    def _complain(self, about: str, text: str, *arguments: object, exc_info: Any = None) -> None:  # noqa: ANN401
        """Say what is wrong, once: until it is right again."""
        if about not in self._troubles:
            self._troubles[about] = time.monotonic()
            self._say(text, *arguments, exc_info=exc_info)

    def _say(self, text: str, *arguments: object, exc_info: Any = None) -> None:  # noqa: ANN401
        """Log a line that is not delivered itself."""
        self._speaking.now = True
        try:
            logger.warning(text, *arguments, exc_info=exc_info)
        finally:
            self._speaking.now = False

    def _succeeded(self) -> None:
        with self._changed:
            self.reached = True
            self._taken_at = time.monotonic()
            self._gave_up_with = None
            self._changed.notify_all()

    def _recovered(self, lanes: set[str]) -> None:
        """Say that it is right again, once everything that had to wait was delivered."""
        for about in ("OAP", *lanes, "reporter", "thread") if lanes else ():
            if (since := self._troubles.pop(about, None)) is not None:
                seconds = time.monotonic() - since
                self._say("OAP at %s is back after %.0f s: %s", self.address, seconds, self._describe())
                if about == "OAP":
                    event("OapAway", f"not reachable for {seconds:.0f} s", failed=True, seconds=seconds)

    def _describe(self) -> str:
        return "; ".join(
            f"{name}: {count.sent} sent, {count.queued} kept, {count.dropped} dropped"
            for name, count in self.counts().items()
        )


def _describe_segment(encoded: bytes) -> str:
    segment = SegmentCollection.FromString(encoded).segments[0]
    return f"{segment.spans[-1].operationName[:200]!r} of trace {segment.traceId}, segment {segment.traceSegmentId}"


def _describe_log(encoded: bytes) -> str:
    log = LogData.FromString(encoded)
    return f"a line of {log.endpoint[:200]!r} in trace {log.traceContext.traceId or 'none'}"
