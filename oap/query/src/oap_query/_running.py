"""Work that still runs, as `skywalking_background` reports it: a log line at its start, and an event when it is long.

A segment reaches OAP only when it ends. Until then these reports are all that OAP has of a task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from oap_query._errors import reads_answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from oap_query._client import Oap
    from oap_query._logs import LogLine

PAGE_ROWS: Final = 500
"""Log lines or events in one query."""
BATCH: Final = 25
"""Traces, or events by their id, in one query."""

_LINES: Final = """query ($condition: LogQueryCondition) { found: queryLogs(condition: $condition) {
    logs { timestamp serviceName serviceInstanceName traceId content tags { key value } } } }"""
_EVENT: Final = """uuid source { service serviceInstance } parameters { key value } startTime endTime"""
_EVENTS: Final = f"""query ($condition: EventQueryCondition) {{ found: queryEvents(condition: $condition) {{
    events {{ {_EVENT} }} }} }}"""


@dataclass(frozen=True, slots=True)
class Started:
    """A task that has started; times in ms since the epoch."""

    trace_id: str
    segment_id: str
    """The segment in which its span will arrive, unless its segment is handed over in parts."""
    task_id: str
    name: str
    service: str
    instance: str
    start: int
    alive: int
    """When its process reported it last."""
    uuid: str = ""
    """Of its event; empty before it has one."""
    ended: bool = False
    """Whether its event has ended."""


def started_of(lines: Iterable[LogLine]) -> list[Started]:
    """Return the start reports among log lines."""
    found = (_of_line(line.tags, line.trace_id, line.service, line.instance, line.time) for line in lines)
    return [item for item in found if item is not None]


@reads_answers
def started(oap: Oap, since: datetime, *, trace_id: str | None = None) -> Iterator[list[Started]]:
    """Yield pages of the tasks whose start was reported since then (with a timezone), the latest reports first.

    Args:
        oap: whom to ask. The tag `task.state` must be one of its searchable log tags.
        since: the first moment; without a meaning for one trace.
        trace_id: of this trace only.
    """
    condition: dict[str, Any] = {"tags": [{"key": "task.state", "value": "started"}], "queryOrder": "DES"}
    spans: list[dict[str, Any]]
    if trace_id is not None:
        spans = [{"relatedTrace": {"traceId": trace_id}}]
    else:
        spans = [{"queryDuration": duration} for duration in reversed(oap.durations(since))]
    for span in spans:
        for rows in _pages(oap, _LINES, {**condition, **span}, "logs"):
            found = (_of_row(row) for row in rows)
            yield [item for item in found if item is not None]


@reads_answers
def long_tasks(oap: Oap, since: datetime) -> Iterator[list[Started]]:
    """Yield pages of the tasks with an event that started since then (with a timezone), the latest first.

    Tasks that have ended are among them.
    """
    condition = {"name": "BackgroundTask", "layer": "GENERAL", "order": "DES"}
    for duration in reversed(oap.durations(since)):
        for rows in _pages(oap, _EVENTS, {**condition, "time": duration}, "events"):
            yield [_of_event(row) for row in rows]


@reads_answers
def refreshed(oap: Oap, tasks: Sequence[Started]) -> list[Started]:
    """Return tasks as their events say now; one without an event stays as it is."""
    found: list[Started] = []
    for first in range(0, len(tasks), BATCH):
        batch = tasks[first : first + BATCH]
        names = {
            f"c{number}": {"uuid": task.uuid or task.segment_id, "paging": _paging(1)}
            for number, task in enumerate(batch)
        }
        parameters = ", ".join(f"${name}: EventQueryCondition" for name in names)
        parts = " ".join(f"{name}: queryEvents(condition: ${name}) {{ events {{ {_EVENT} }} }}" for name in names)
        answer = oap.query(f"query ({parameters}) {{ {parts} }}", **names)
        for number, task in enumerate(batch):
            rows = answer[f"c{number}"]["events"]
            found.append(_merged(task, _of_event(rows[0])) if rows else task)
    return found


@reads_answers
def arrived(oap: Oap, tasks: Iterable[Started]) -> set[str]:
    """Return the segment ids of those tasks whose span has arrived: they have ended."""
    by_trace: dict[str, list[Started]] = {}
    for task in tasks:
        by_trace.setdefault(task.trace_id, []).append(task)
    ids = [trace_id for trace_id in by_trace if trace_id]
    over: set[str] = set()
    for first in range(0, len(ids), BATCH):
        batch = {f"t{number}": trace_id for number, trace_id in enumerate(ids[first : first + BATCH])}
        parameters = ", ".join(f"${name}: ID!" for name in batch)
        parts = " ".join(
            f"{name}: queryTrace(traceId: ${name}) {{ spans {{ segmentId spanId endpointName }} }}" for name in batch
        )
        answer = oap.query(f"query ({parameters}) {{ {parts} }}", **batch)
        for name, trace_id in batch.items():
            names = {(span["segmentId"], span["endpointName"]) for span in answer[name]["spans"]}
            over |= {task.segment_id for task in by_trace[trace_id] if has_arrived(task, names)}
    return over


def has_arrived(task: Started, spans: set[tuple[str, str]]) -> bool:
    """Say whether a task's span is among those of its trace, each as its segment's id and its name.

    A segment that stayed open for long is handed over in parts: the first holds `<name> (part)`, and the task's own
    span arrives in another segment.
    """
    if (task.segment_id, task.name) in spans:
        return True
    is_parted = (task.segment_id, f"{task.name} (part)") in spans
    return is_parted and any(name == task.name and segment != task.segment_id for segment, name in spans)


def _pages(oap: Oap, text: str, condition: dict[str, Any], key: str) -> Iterator[list[Any]]:
    number = 1
    while True:
        rows: list[Any] = oap.query(text, condition={**condition, "paging": _paging(number)})["found"][key]
        yield rows
        if len(rows) < PAGE_ROWS:
            return
        number += 1


def _paging(number: int) -> dict[str, int]:
    return {"pageNum": number, "pageSize": PAGE_ROWS}


def _of_row(row: dict[str, Any]) -> Started | None:
    tags = {tag["key"]: tag["value"] for tag in row["tags"] or ()}
    source = (row["traceId"] or "", row["serviceName"] or "", row["serviceInstanceName"] or "")
    return _of_line(tags, *source, row["timestamp"])


def _of_line(tags: dict[str, str], trace_id: str, service: str, instance: str, moment: int) -> Started | None:
    if tags.get("task.state") != "started":
        return None
    segment_id = tags.get("segment.id", "")
    start = _number(tags.get("task.since"), moment)
    return Started(
        trace_id,
        segment_id,
        tags.get("task.id", segment_id),
        tags.get("task.name", ""),
        service,
        instance,
        start,
        moment,
    )


def _of_event(row: dict[str, Any]) -> Started:
    parameters = {item["key"]: item["value"] for item in row["parameters"] or ()}
    start = int(row["startTime"])
    return Started(
        parameters.get("trace.id", ""),
        parameters.get("segment.id", row["uuid"]),
        parameters.get("task.id", row["uuid"]),
        parameters.get("task.name", ""),
        row["source"]["service"] or "",
        row["source"]["serviceInstance"] or "",
        _number(parameters.get("task.since"), start),
        _number(parameters.get("task.alive"), start),
        row["uuid"],
        bool(row["endTime"]),
    )


def _merged(task: Started, event: Started) -> Started:
    return replace(task, alive=max(task.alive, event.alive), uuid=event.uuid, ended=event.ended)


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else otherwise


def is_silent(task: Started, now: datetime | None = None, seconds: float = 90) -> bool:
    """Say whether a task with an event was not reported for so long: its process is gone, or can't reach OAP."""
    moment = (now or datetime.now(UTC)).timestamp() * 1000
    return bool(task.uuid) and moment - task.alive > seconds * 1000
