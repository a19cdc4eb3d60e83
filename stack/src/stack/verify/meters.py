"""Whether OAP has each meter of the service, its tasks and its process, with a value that can be true."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from oap_query import Metric, instances, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from oap_query import Oap, Points

METERS_TIMEOUT_SECONDS: Final = 75.0
"""The service reports every 20 s, and OAP stores what it got some seconds later."""
_LOOK_SECONDS: Final = 2.0
_HOUR_MS: Final = 3_600_000


class _Meter(NamedTuple):
    """A meter and what it must be: the sum over all minutes for counts, else the highest value of a minute."""

    name: str
    lowest: float = 0
    highest: float = math.inf
    summed: bool = False
    over_instances: str = ""
    """How the values of all instances are one, `sum` or `max`; empty where OAP keeps one value for all of them."""

    @property
    def expression(self) -> str:
        """What to ask OAP for."""
        name = f"meter_background_{self.name}"
        return f"aggregate_labels({name},{self.over_instances})" if self.over_instances else name


def _counts(kind: str, tasks: int) -> Iterator[_Meter]:
    lowest = {"started": tasks, "succeeded": 1, "failed": 1, "retried": 1, "dead": 1, "cancelled": 0, "crashed": 0}
    for what, number in lowest.items():
        yield _Meter(f"{kind}_{what}", number, summed=True)


def _of_service(tasks: int, at_once: int) -> list[_Meter]:
    return [
        *_counts("tasks", tasks),
        _Meter("tasks_running", at_once, over_instances="sum"),
        _Meter("tasks_queued", over_instances="sum"),
        _Meter("longest_task_ms", 0, _HOUR_MS, over_instances="max"),
        _Meter("loop_lag_ms", 0, 60_000, over_instances="max"),
        _Meter("run_time_percentile{p='99'}", 1_000, _HOUR_MS),
        _Meter("queue_delay_percentile{p='99'}", 0, _HOUR_MS),
        _Meter("segments_sent", tasks, summed=True),
        _Meter("segments_dropped", 0, 0, summed=True),
        _Meter("segments_queued", over_instances="sum"),
    ]


def _of_task(at_once: int) -> list[_Meter]:
    return [
        *_counts("task", at_once),
        _Meter("task_running", at_once, over_instances="sum"),
        _Meter("task_queued", over_instances="sum"),
        _Meter("task_run_time_ms", 1, _HOUR_MS),
        _Meter("task_queue_delay_ms", 0, _HOUR_MS),
        _Meter("task_run_time_percentile{p='99'}", 1_000, _HOUR_MS),
        _Meter("task_queue_delay_percentile{p='99'}", 0, _HOUR_MS),
    ]


_OF_PROCESS: Final = [
    _Meter("total_cpu_utilization", 0, 100),
    _Meter("process_cpu_utilization", 0, 100_000),
    _Meter("total_mem_utilization", 1, 100),
    _Meter("process_mem_utilization", 1, 100),
    _Meter("thread_active_count", 1, 10_000),
    *(_Meter(f"gc_{what}") for what in ("g0", "g1", "g2", "time")),
]


def check_meters(oap: Oap, service: str, tasks: int, at_once: int, began: datetime) -> list[tuple[bool, str]]:
    """Read each meter back, and wait for those that are late; a line for each group.

    Args:
        oap: where they are.
        service: its name in SkyWalking.
        tasks: how many tasks have been started since `began`, at the least.
        at_once: how many `background_sleep_task` of them ran at the same time.
        began: when the first request was sent.
    """
    named = instances(oap, service, began)
    groups = {
        f"{service}": [(one, Metric(one.expression, service)) for one in _of_service(tasks, at_once)],
        "background_sleep_task": [
            (one, Metric(one.expression, service, endpoint="background_sleep_task")) for one in _of_task(at_once)
        ],
    }
    if named:
        groups[named[-1]] = [
            (one, Metric(f"meter_instance_pvm_{one.name}", service, instance=named[-1])) for one in _OF_PROCESS
        ]
    deadline = time.monotonic() + METERS_TIMEOUT_SECONDS
    lines = []
    for about, meters in groups.items():
        wrong = _wrong(oap, meters, began)
        while wrong and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            wrong = _wrong(oap, meters, began)
        text = f"{about} has its {len(meters)} meters, with values that can be true"
        lines.append((not wrong, f"{text}: {'; '.join(wrong)}" if wrong else text))
    return lines


def _wrong(oap: Oap, meters: list[tuple[_Meter, Metric]], began: datetime) -> list[str]:
    series = read(oap, [metric for _, metric in meters], began)
    return [
        f"{metric.expression} is {value}"
        for (meter, metric), points in zip(meters, series, strict=True)
        if (value := _value(meter, points)) is None or not meter.lowest <= value <= meter.highest
    ]


def _value(meter: _Meter, points: Points) -> float | None:
    if not points:
        return None
    return sum(points.values()) if meter.summed else max(points.values())
