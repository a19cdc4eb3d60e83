"""How the traces of a run are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oap_query import Segment
from stack.load import Load, Request, most_at_once, percentile, scenarios
from stack.load.locust import check_scenario
from stack.load.traces import count_traces
from stack.settings import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


def asked(trace_id: str, tasks: int = 1) -> Request:
    return Request(0.0, 2.0, "GET /test", 200 if trace_id else 0, trace_id, tasks, None, "")


def seen(trace_id: str, number: int, *, request: bool, start: int = 0) -> Segment:
    name = "HTTP GET /test" if request else "background_sleep_task"
    return Segment(trace_id, f"{trace_id}-{number}", name, start, 10, False, request)


def whole(trace_id: str, tasks: int = 1) -> Iterable[Segment]:
    return [seen(trace_id, number, request=number == 0) for number in range(tasks + 1)]


def test_a_trace_is_complete_when_the_request_and_each_of_its_tasks_are_there() -> None:
    found = count_traces([asked("a"), asked("b", 3)], [*whole("a"), *whole("b", 3)])
    assert found.is_complete
    assert (found.expected, found.traces, found.complete, found.lost, len(found.tasks)) == (2, 2, 2, 0, 4)


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_each_missing_segment_is_counted(missing: int) -> None:
    found = count_traces([asked("a", 2), asked("b")], [*whole("a", 2), *whole("b")][missing:])
    assert found.lost == missing
    assert found.is_complete == (missing == 0)
    assert found.traces == (1 if missing == 3 else 2)
    assert found.incomplete == (frozenset("a") if missing else frozenset())


def test_segments_of_others_and_rows_that_come_twice_count_for_nothing() -> None:
    found = count_traces([asked("a", 2)], [*whole("a"), *whole("a"), *whole("stranger", 5)])
    assert (found.traces, found.complete, found.lost, len(found.tasks)) == (1, 0, 1, 1)


def test_a_request_without_an_answer_has_no_trace_to_look_for() -> None:
    assert count_traces([asked("")], []).expected == 0


def test_the_peak_is_the_most_tasks_that_share_a_moment() -> None:
    assert most_at_once([]) == 0
    assert most_at_once([(0, 10), (10, 20)]) == 1
    assert most_at_once([(0, 10), (9, 20), (5, 6), (15, 30)]) == 2
    assert most_at_once([(0, 10)] * 7 + [(20, 30)] * 5) == 7


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1)) == (51, 100, 100)


def test_every_scenario_says_in_one_line_what_it_shows() -> None:
    found = scenarios()
    assert {"smoke", "parallel", "burst", "ramp", "blocking-vs-background", "failures", "soak", "mixed"} <= set(found)
    assert all(line.endswith(".") and len(line) > 30 for line in found.values())


def test_an_unknown_scenario_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"there is no scenario 'flood': SCENARIO is one of .*burst"):
        check_scenario(Load("flood"))
