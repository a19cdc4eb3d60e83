"""What runs, read from log lines, events and spans as OAP returns them."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from oap_query import (
    Oap,
    Started,
    alarms,
    arrived,
    has_arrived,
    is_silent,
    log_lines,
    long_tasks,
    refreshed,
    started,
    started_of,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TAGS = {
    "level": "INFO", "task.state": "started", "task.name": "resize", "task.id": "7", "task.since": "1000",
    "segment.id": "s",
}  # fmt: skip
LINE = {
    "timestamp": 3300, "serviceName": "demo", "serviceInstanceName": "i", "traceId": "t", "content": "task started: …",
    "tags": [{"key": key, "value": value} for key, value in TAGS.items()],
}  # fmt: skip
OTHER = {**LINE, "tags": [{"key": "level", "value": "INFO"}]}
STARTED = Started("t", "s", "7", "resize", "demo", "i", 1000, 3300)
EVENT = {
    "uuid": "s", "source": {"service": "demo", "serviceInstance": "i"}, "startTime": 1000, "endTime": 0,
    "parameters": [
        {"key": key, "value": value}
        for key, value in {
            "task.name": "resize", "task.id": "7", "task.since": "1000", "task.alive": "61000", "trace.id": "t",
            "segment.id": "s", "task.outcome": "running",
        }.items()
    ],
}  # fmt: skip


def oap(answers: dict[str, Any]) -> Oap:
    """Make an OAP that answers each query by the first key its text contains, and notes the variables."""
    found = Oap("http://oap")
    found.asked = []  # type: ignore[attr-defined]

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        found.asked.append(body["variables"])  # type: ignore[attr-defined]
        key = next(key for key in answers if key in body["query"])
        return httpx.Response(200, json={"data": answers[key]})

    found._client = httpx.Client(base_url="http://oap", transport=httpx.MockTransport(answer))
    return found


COMMON = {
    "hasQueryTracesV2Support": {"hasQueryTracesV2Support": False},
    "getTimeInfo": {"time": {"timezone": "+0000"}},
}


def test_start_reports_are_told_from_other_log_lines() -> None:
    answers = {**COMMON, "queryLogs": {"found": {"logs": [LINE, OTHER]}}}
    assert next(iter(started(oap(answers), NOW))) == [STARTED]
    assert started_of(log_lines(oap(answers), "t")) == [STARTED]


def test_of_one_trace_no_time_is_asked_for() -> None:
    asked = oap({"queryLogs": {"found": {"logs": [LINE]}}})
    assert list(started(asked, NOW, trace_id="t")) == [[STARTED]]
    (variables,) = asked.asked  # type: ignore[attr-defined]
    assert variables["condition"]["relatedTrace"] == {"traceId": "t"}
    assert "queryDuration" not in variables["condition"]


def test_a_start_report_with_odd_values_is_still_one() -> None:
    tags = {**TAGS, "task.since": "long ago"}
    del tags["task.id"]
    line = {**LINE, "tags": [{"key": key, "value": value} for key, value in tags.items()]}
    ((found,),) = started(oap({**COMMON, "queryLogs": {"found": {"logs": [line]}}}), NOW, trace_id="t")
    assert (found.task_id, found.start) == ("s", 3300)


def test_events_say_what_has_run_for_long() -> None:
    answers = {**COMMON, "queryEvents": {"found": {"events": [EVENT, {**EVENT, "endTime": 70_000}]}}}
    running, over = next(iter(long_tasks(oap(answers), NOW)))
    assert running == Started("t", "s", "7", "resize", "demo", "i", 1000, 61_000, "s")
    assert over.ended


def test_a_tasks_event_is_looked_up_by_its_segment() -> None:
    asked = oap({"queryEvents": {"c0": {"events": [EVENT]}, "c1": {"events": []}}})
    first, second = refreshed(asked, [STARTED, STARTED])
    assert (first.alive, first.uuid, first.ended) == (61_000, "s", False)
    assert second == STARTED
    (variables,) = asked.asked  # type: ignore[attr-defined]
    assert variables["c0"]["uuid"] == "s"


@pytest.mark.parametrize(
    ("spans", "ended"),
    [
        ([], False),
        ([("a", "HTTP GET /")], False),
        ([("s", "resize")], True),
        ([("s", "an attempt")], False),
        ([("s", "resize (part)")], False),
        ([("s", "resize (part)"), ("u", "resize")], True),
        ([("u", "resize")], False),  # another task of that name
    ],
)
def test_a_task_has_ended_when_its_own_span_has_arrived(spans: list[tuple[str, str]], *, ended: bool) -> None:
    assert has_arrived(STARTED, set(spans)) is ended
    rows = [{"segmentId": segment, "spanId": 0, "endpointName": name} for segment, name in spans]
    assert arrived(oap({"queryTrace": {"t0": {"spans": rows}}}), [STARTED]) == ({"s"} if ended else set())


def test_only_a_task_with_an_event_can_fall_silent() -> None:
    long = Started("t", "s", "7", "resize", "demo", "i", 1000, 61_000, "s")
    assert not is_silent(long, datetime.fromtimestamp(150, UTC))
    assert is_silent(long, datetime.fromtimestamp(152, UTC))
    assert not is_silent(STARTED, NOW)


@pytest.mark.parametrize("tells", [True, False])
def test_an_alarm_says_whose_it_is_and_when_it_recovered(*, tells: bool) -> None:
    service, endpoint = (b64encode(name.encode()).decode() for name in ("demo", "rész/1"))
    base = {"startTime": 5, "message": "m", "tags": [{"key": "level", "value": "WARNING"}]}
    rows = [
        {**base, "id": f"{service}.1", "scope": "Service", "recoveryTime": 9},
        {**base, "id": f"{service}.1_{endpoint}", "scope": "Endpoint", "recoveryTime": 0},
        {**base, "id": "a.1-b.1", "scope": "ServiceRelation", "recoveryTime": None},
        {**base, "id": "§", "scope": None},
    ]
    if not tells:
        rows = [{key: value for key, value in row.items() if key != "recoveryTime"} for row in rows]
    fields = [{"name": "recoveryTime"}] if tells else []
    found = alarms(
        oap({**COMMON, "__type": {"__type": {"fields": fields}}, "getAlarm": {"getAlarm": {"msgs": rows}}}), NOW
    )
    assert [(item.service, item.part, item.recovered) for item in found] == [
        ("demo", "", 9 if tells else None), ("demo", "rész/1", None), ("", "", None), ("", "", None),
    ]  # fmt: skip
