"""Delivery to OAP: in batches, acknowledged, kept while OAP is away.

The agent's own reporter streams one message per segment and forgets it as it hands it to gRPC: what was under way when
OAP went away is lost, and a full queue drops in silence. Here a batch leaves the queue when OAP has acknowledged it,
and whatever does not fit is counted. One call per batch also costs a fraction of the CPU.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from skywalking import config
from skywalking.agent.protocol.interceptors import header_adder_interceptor
from skywalking.protocol.common.Command_pb2 import Commands
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking.protocol.logging.Logging_pb2_grpc import LogReportServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable


from skywalking_background._encoding import encode_segment

logger = logging.getLogger("skywalking_background")

INTERVAL: Final = 0.25  # seconds between two batches: how late a finished span may leave
BATCH: Final = 500  # segments or logs in one call: about 0.5 MB, far below OAP's limit of 50 MB
CALL_TIMEOUT: Final = 10.0  # seconds that OAP may take for one batch
RETRY_MAX: Final = 5.0  # seconds: the longest wait before OAP is tried again

COLLECT: Final = "/skywalking.v3.TraceSegmentReportService/collectInSync"
COLLECT_LOGS: Final = "/skywalking.v3.LogReportService/collect"


class Counts(NamedTuple):
    """What became of the segments or logs of this process: acknowledged by OAP, waiting, given up."""

    sent: int
    queued: int
    dropped: int


class Lane:
    """A bounded queue of one kind of thing, and how a batch of it reaches OAP.

    What is finished is encoded at once. It costs the request what it would cost the reporter's thread, but the hundreds
    of objects that a trace consists of die young: kept in the queue they would grow old there, and the garbage
    collector would go through all running tasks the more often.
    """

    def __init__(
        self, name: str, limit: int, encode: Callable[[Any], Any], deliver: Callable[[list[Any]], object]
    ) -> None:
        self.name = name
        self.limit = limit
        self.encode = encode
        self.deliver = deliver
        self.queue: deque[Any] = deque()  # append and popleft are atomic: no lock on the request's path
        self.sent = 0
        self.refused = 0  # did not fit into the queue
        self.broken = 0  # could not be encoded

    def put(self, item: Any) -> None:  # noqa: ANN401  # a Segment or a LogData
        """Queue what is finished; never raises, for the request has no part in it."""
        if len(self.queue) >= self.limit:
            self.refused += 1
            return
        try:
            self.queue.append(self.encode(item))
        except Exception:
            self.broken += 1
            logger.exception("one of the %s can't be encoded and is dropped", self.name)

    def send_batch(self) -> bool:
        """Deliver the oldest batch; `False` when there is none. It stays queued when that fails.

        Raises:
            grpc.RpcError: OAP did not acknowledge.
        """
        batch = list(itertools.islice(self.queue, BATCH))
        if not batch:
            return False
        self.deliver(batch)
        for _ in batch:
            self.queue.popleft()
        self.sent += len(batch)
        return True


class Reporter:
    """A thread that delivers segments and logs to OAP until the process ends."""

    def __init__(self) -> None:
        self.address: str = config.agent_collector_backend_services
        channel = _channel(self.address)
        # As the generated stub does it, but for messages that are encoded already.
        collect: Any = channel.unary_unary(COLLECT, response_deserializer=Commands.FromString)
        stream_logs = LogReportServiceStub(channel).collect
        collect_log: Any = channel.unary_unary(
            COLLECT_LOGS, request_serializer=LogData.SerializeToString, response_deserializer=Commands.FromString
        )

        def deliver_logs(batch: list[Any]) -> None:
            try:
                stream_logs(iter(batch), timeout=CALL_TIMEOUT)
            except RuntimeError:
                # A stream needs a thread, and Python 3.12 starts none at the process's end: then a call for each line.
                for log in batch:
                    collect_log(log, timeout=CALL_TIMEOUT)

        self.segments = Lane(
            "segments",
            config.agent_trace_reporter_max_buffer_size,
            encode_segment,
            lambda batch: collect(b"".join(batch), timeout=CALL_TIMEOUT),
        )
        self.logs = Lane(
            "logs",
            config.agent_log_reporter_max_buffer_size,
            lambda log: log,
            deliver_logs,
        )
        self.lanes = (self.segments, self.logs)
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._away_since: float | None = None
        threading.Thread(target=self._run, name="skywalking-background-reporter", daemon=True).start()
        atexit.register(self.flush)

    def counts(self) -> dict[str, Counts]:
        """Count each lane's items by what became of them."""
        return {lane.name: Counts(lane.sent, len(lane.queue), lane.refused + lane.broken) for lane in self.lanes}

    def flush(self, timeout: float = 5.0) -> bool:
        """Deliver all that is queued; `False`, and a line in the log, when OAP takes nothing for `timeout` seconds."""
        goals = [(lane, lane.sent + len(lane.queue)) for lane in self.lanes]
        self._wake.set()
        with self._progress:
            while not (done := all(lane.sent >= goal for lane, goal in goals)):
                before = [lane.sent for lane in self.lanes]
                if not self._progress.wait_for(lambda: [lane.sent for lane in self.lanes] != before, timeout):  # noqa: B023
                    break
        if not done:
            logger.warning("OAP at %s took nothing for %.0f s: %s", self.address, timeout, self._describe())
        return done

    def _run(self) -> None:
        wait = INTERVAL
        while True:
            if self._wake.wait(wait):
                self._wake.clear()
            try:
                while sum(lane.send_batch() for lane in self.lanes):
                    self._succeeded()
                    with self._progress:
                        self._progress.notify_all()
            except Exception as error:  # noqa: BLE001  # whatever it is, the thread goes on, and so does the delivery
                self._failed(error)
                wait = min(RETRY_MAX, max(1.0, wait * 2))
            else:
                wait = INTERVAL

    def _failed(self, error: Exception) -> None:
        if self._away_since is not None:
            return  # said once is enough, until it is back
        self._away_since = time.monotonic()
        code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
        logger.warning(
            "OAP at %s is not reachable (%s): up to %d segments are kept until it is back",
            self.address,
            code,
            self.segments.limit,
        )

    def _succeeded(self) -> None:
        if self._away_since is None:
            return
        seconds = time.monotonic() - self._away_since
        self._away_since = None
        logger.warning("OAP at %s is back after %.0f s: %s", self.address, seconds, self._describe())

    def _describe(self) -> str:
        return "; ".join(
            f"{name}: {count.sent} sent, {count.queued} kept, {count.dropped} dropped"
            for name, count in self.counts().items()
        )


def _channel(address: str) -> grpc.Channel:
    # gRPC's own back-off grows to two minutes; a restarted OAP should see its traces sooner.
    options = [("grpc.initial_reconnect_backoff_ms", 500), ("grpc.max_reconnect_backoff_ms", int(RETRY_MAX * 1000))]
    if config.agent_force_tls:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
    else:
        channel = grpc.insecure_channel(address, options)
    if config.agent_authentication:
        interceptor = header_adder_interceptor("authentication", config.agent_authentication)
        channel = grpc.intercept_channel(channel, interceptor)
    return channel
