from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from oap_query import Metric, Oap, OapAwayError, OapError, Segment, is_request, read, segments, summaries

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def oap(answers: dict[str, Any]) -> Oap:
    """Make an OAP that answers each query by the first key its text contains, and notes the variables."""
    found = Oap("http://oap")

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        key = next(key for key in answers if key in body["query"])
        found.asked.append((key, body["variables"]))  # type: ignore[attr-defined]
        given = answers[key]
        return given if isinstance(given, httpx.Response) else httpx.Response(200, json={"data": given})

    found.asked = []  # type: ignore[attr-defined]
    found._client = httpx.Client(base_url="http://oap", transport=httpx.MockTransport(answer))
    return found


def span(segment: str, number: int, name: str, times: tuple[int, int], **more: object) -> dict[str, object]:
    return {
        "traceId": "t", "segmentId": segment, "spanId": number, "startTime": times[0], "endTime": times[1],
        "endpointName": name, "type": "Local", "layer": "Unknown", "isError": False, "serviceCode": "demo", **more,
    }  # fmt: skip


def row(segment: str, name: str, start: int, duration: int, *, failed: bool = False) -> dict[str, object]:
    return {
        "segmentId": segment, "traceIds": ["t"], "endpointNames": [name], "start": str(start), "duration": duration,
        "isError": failed,
    }  # fmt: skip


COMMON = {
    "getTimeInfo": {"time": {"timezone": "+0200"}},
    "findService": {"service": {"id": "ZGVtbw==.1"}},
}
WHOLE = {
    **COMMON,
    "hasQueryTracesV2Support": {"hasQueryTracesV2Support": True},
    "queryTraces": {
        "data": {
            "traces": [
                {
                    "spans": [
                        span("b", 1, "attempt", (5, 900), isError=True),
                        span("a", 0, "HTTP GET /test", (0, 2), type="Entry", layer="Http"),
                        span("b", 0, "work", (3, 1003), layer="Http"),
                        span("a", 1, "handling", (0, 2)),
                    ]
                }
            ]
        }
    },
}
ROWS = {
    **COMMON,
    "hasQueryTracesV2Support": httpx.Response(400, json={"errors": [{"message": "no such field"}]}),
    "queryBasicTraces": {
        "data": {"traces": [row("b", "work", 3, 1000, failed=True), row("a", "HTTP GET /test", 0, 2)]}
    },
}


@pytest.mark.parametrize("answers", [WHOLE, ROWS], ids=["BanyanDB", "SQL"])
def test_both_trace_apis_give_the_same_segments(answers: dict[str, Any]) -> None:
    found = [segment for page in segments(oap(answers), NOW, service="demo") for segment in page]
    assert {(s.segment_id, s.name, s.start, s.duration, s.error, s.request) for s in found} == {
        ("a", "HTTP GET /test", 0, 2, False, True),
        ("b", "work", 3, 1000, True, False),
    }


@pytest.mark.parametrize("answers", [WHOLE, ROWS], ids=["BanyanDB", "SQL"])
def test_a_search_is_in_the_timezone_of_oaps_machine(answers: dict[str, Any]) -> None:
    asked = oap(answers)
    list(segments(asked, NOW, NOW, service="demo", least=7))
    condition = asked.asked[-1][1]["condition"]  # type: ignore[attr-defined]
    assert condition["queryDuration"] == {"start": "2026-11-24 140000", "end": "2026-11-24 140000", "step": "SECOND"}
    assert condition["serviceId"] == "ZGVtbw==.1"
    assert condition["minTraceDuration"] == 7


@pytest.mark.parametrize(("answers", "ranges"), [(WHOLE, 1), (ROWS, 2)], ids=["BanyanDB", "SQL"])
def test_a_range_over_midnight_is_asked_for_day_by_day_where_oap_keeps_a_table_for_each(
    answers: dict[str, Any], ranges: int
) -> None:
    asked = oap(answers)
    evening, night = datetime(2026, 11, 24, 21, 50, tzinfo=UTC), datetime(2026, 11, 24, 22, 10, tzinfo=UTC)
    list(segments(asked, evening, night))
    conditions = [variables["condition"] for _, variables in asked.asked if "condition" in variables]  # type: ignore[attr-defined]
    durations = [(c["queryDuration"]["start"], c["queryDuration"]["end"]) for c in reversed(conditions)]
    today, yesterday = "2026-11-25", "2026-11-24"  # OAP's clock is two hours ahead
    split = [(f"{yesterday} 235000", f"{yesterday} 235959"), (f"{today} 000000", f"{today} 001000")]
    assert durations == (split if ranges > 1 else [(f"{yesterday} 235000", f"{today} 001000")])


def test_a_service_that_oap_does_not_know_has_no_segments() -> None:
    assert list(segments(oap({**ROWS, "findService": {"service": None}}), NOW, service="nobody")) == []


def test_an_absent_oap_is_asked_again_what_it_can_do() -> None:
    asked = oap({**WHOLE, "hasQueryTracesV2Support": httpx.Response(503)})
    with pytest.raises(OapAwayError, match="does not answer"):
        list(segments(asked, NOW))
    asked._client = oap(WHOLE)._client
    assert asked.has_whole_traces


def test_something_that_is_no_oap_is_named_so() -> None:
    with pytest.raises(OapError, match="no OAP"):
        oap({"time": httpx.Response(200, json={"hello": "world"})}).query("{ time }")


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("HTTP GET /test", True),
        ("WebSocket /ws", True),
        ("WebSocket /ws connection", False),
        ("background_sleep_task", False),
        ("celery/tasks.sleep", False),
        ("HTTPClient.get", False),
    ],
)
def test_requests_are_told_from_tasks_by_their_name(name: str, request_: bool) -> None:
    assert is_request(name) is request_


def test_segments_make_whole_traces_the_newest_first() -> None:
    def segment(trace: str, number: int, start: int, duration: int, *, error: bool = False) -> Segment:
        return Segment(trace, f"{trace}{number}", f"n{number}", start, duration, error, request=number == 0)

    found = [
        segment("x", 1, 12, 500),
        segment("y", 0, 40, 1),
        segment("x", 0, 10, 3),
        segment("x", 2, 12, 90, error=True),
    ]
    newest, oldest = summaries([*found, found[0]])
    assert (newest.trace_id, newest.error, newest.tasks) == ("y", False, 0)
    assert (oldest.name, oldest.start, oldest.duration, oldest.tasks, oldest.error) == ("n0", 10, 502, 2, True)
    assert len(oldest.segments) == 3


def test_minutes_without_a_value_are_left_out_and_unknown_metrics_are_empty() -> None:
    answer = {
        "m0": {
            "error": None,
            "results": [{"values": [{"id": "60000", "value": "7"}, {"id": "120000", "value": None}]}],
        },
        "m1": {"error": "no such metric", "results": []},
    }
    asked = oap({**COMMON, "hasQueryTracesV2Support": {"hasQueryTracesV2Support": True}, "execExpression": answer})
    assert read(asked, [Metric("service_cpm", "demo"), Metric("nonsense", "demo", "work")], NOW) == [{60000: 7.0}, {}]
    assert asked.asked[-1][1]["o1"]["scope"] == "Endpoint"  # type: ignore[attr-defined]


def test_an_expression_with_several_series_is_refused_instead_of_mixed() -> None:
    series = {"values": [{"id": "60000", "value": "7"}]}
    answer = {"m0": {"error": None, "results": [series, series]}}
    asked = oap({**COMMON, "hasQueryTracesV2Support": {"hasQueryTracesV2Support": True}, "execExpression": answer})
    with pytest.raises(OapError, match="running has 2 series: aggregate its labels"):
        read(asked, [Metric("running", "demo")], NOW)
