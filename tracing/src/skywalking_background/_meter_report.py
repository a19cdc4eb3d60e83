"""The meters of this process on their way to OAP: every 20 s, and what is left at the end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from skywalking.protocol.language_agent.Meter_pb2 import (
    Label,
    MeterBucketValue,
    MeterData,
    MeterDataCollection,
    MeterHistogram,
    MeterSingleValue,
)

from skywalking_background import _loop_lag, _meters, _runtime_meters
from skywalking_background._failures import DeliveryError, UnreachableError
from skywalking_background._faults import logger, note
from skywalking_background._internals import config

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._lane import Counts
    from skywalking_background._meters import Taken


_PREFIX: Final = "background_"


class MeterReport:
    """Reports what has changed since OAP last took it.

    Args:
        send: delivers an encoded `MeterDataCollection`; raises a `DeliveryError` when OAP did not take it.
        segments: counts the segments of this process.
        period: seconds between two reports.
    """

    def __init__(self, send: Callable[[bytes], object], segments: Callable[[], Counts], period: float) -> None:
        self._send = send
        self._segments = segments
        self._period = period
        self._due = time.monotonic() + period
        self._lock = threading.Lock()
        self._sent = self._dropped = 0  # segments, as of the last report
        self._refused = False  # and it was said

    def step(self) -> None:
        """Watch the event loops, and report when it is time; never raises."""
        try:
            if _meters.enabled:
                _loop_lag.probe()
            if time.monotonic() >= self._due:
                self.send()
        except Exception:  # noqa: BLE001  # the reporter goes on
            note("reporting meters")

    def send(self) -> None:
        """Report now; what OAP does not take is part of the next report."""
        with self._lock:
            self._due = time.monotonic() + self._period
            tallies = list(_meters.take_all()) if _meters.enabled else []
            lag = _loop_lag.take() if _meters.enabled else None
            try:
                self._report(tallies, lag)
            except Exception as error:
                for task, tally, _ in tallies:
                    task.put_back(tally)
                if lag is not None:
                    _loop_lag.put_back(lag)
                if not isinstance(error, DeliveryError):
                    raise
                self._failed(error)
            else:
                self._refused = False

    def send_rest(self) -> None:
        """Report what was counted since the last time, as the process ends; never raises."""
        try:
            if _meters.enabled and (_meters.anything() or self._segments().dropped > self._dropped):
                self.send()
        except Exception:  # noqa: BLE001  # nobody is there who could mind
            note("reporting meters")

    def _failed(self, error: DeliveryError) -> None:
        # That OAP is away the reporter says.
        if not self._refused and not isinstance(error, UnreachableError):
            self._refused = True
            logger.warning("OAP does not take the meters of this process (%s): they are added up and sent again", error)

    def _report(self, tallies: list[Taken], lag: int | None) -> None:
        meters = _of_runtime()
        segments = self._segments()
        if _meters.enabled:
            meters += _of_tasks(tallies)
            meters.append(_single("segments_sent", segments.sent - self._sent))
            meters.append(_single("segments_dropped", segments.dropped - self._dropped))
            meters.append(_single("segments_queued", segments.queued))
            if lag is not None:
                meters.append(_single("loop_lag_ms", lag))
        if not meters:
            return
        meters[0].service = config.agent_name
        meters[0].serviceInstance = config.agent_instance_name
        meters[0].timestamp = int(time.time() * 1000)
        self._send(MeterDataCollection(meterData=meters).SerializeToString())
        self._sent, self._dropped = segments.sent, segments.dropped


def _of_tasks(tallies: list[Taken]) -> list[MeterData]:
    now = int(time.time() * 1000)
    waiting = _meters.queued()
    meters = []
    longest = 0
    for task, tally, oldest in tallies:
        name = task.name
        meters += [_single(f"tasks_{what}", getattr(tally, what), name) for what in _meters.COUNTED]
        meters.append(_single("tasks_running", tally.peak, name))
        meters.append(_single("tasks_queued", waiting.pop(name, 0), name))
        if oldest is not None:
            longest = max(longest, now - oldest.start_time)
        for kind, histogram in (("run_time", tally.run_times), ("queue_delay", tally.delays)):
            if histogram:
                mean = sum(value * times for value, times in histogram.items()) / sum(histogram.values())
                meters.append(_single(f"{kind}_mean_ms", mean, name))
                meters.append(_histogram(f"{kind}_ms", histogram, name))
    meters += [_single("tasks_queued", number, name) for name, number in waiting.items()]
    meters.append(_single("longest_task_ms", longest))
    return meters


def _of_runtime() -> list[MeterData]:
    return [
        MeterData(singleValue=MeterSingleValue(name=name, value=value))
        for name, value in _runtime_meters.read().items()
    ]


def _labels(task: str | None) -> list[Label]:
    return [] if task is None else [Label(name="task", value=task)]


def _single(name: str, value: float, task: str | None = None) -> MeterData:
    return MeterData(singleValue=MeterSingleValue(name=_PREFIX + name, labels=_labels(task), value=value))


def _histogram(name: str, histogram: dict[int, int], task: str) -> MeterData:
    values = [MeterBucketValue(bucket=value, count=times) for value, times in sorted(histogram.items())]
    return MeterData(histogram=MeterHistogram(name=_PREFIX + name, labels=_labels(task), values=values))
