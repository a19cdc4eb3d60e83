"""Log lines: those of a trace, and those that a search finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oap_query._errors import reads_answers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from oap_query._client import Oap

_LINES: Final = """query ($condition: LogQueryCondition) { found: queryLogs(condition: $condition) {
    logs { timestamp serviceName serviceInstanceName traceId content tags { key value } } } }"""


@dataclass(frozen=True)
class LogLine:
    """A log line that belongs to a trace; `time` in ms since the epoch."""

    time: int
    service: str
    level: str
    content: str
    instance: str = ""
    trace_id: str = ""
    tags: dict[str, str] = field(default_factory=dict, hash=False)


@reads_answers
def log_lines(oap: Oap, trace_id: str, limit: int = 200) -> list[LogLine]:
    """Return the log lines of a trace, the earliest first."""
    condition = {"relatedTrace": {"traceId": trace_id}, "paging": {"pageNum": 1, "pageSize": limit}}
    return sorted(_read(oap, condition), key=lambda line: line.time)


@reads_answers
def search_lines(
    oap: Oap, since: datetime, *, service: str = "", tags: Mapping[str, str] | None = None, limit: int = 200
) -> list[LogLine]:
    """Return log lines since then (with a timezone), the latest first, at most so many.

    Args:
        oap: whom to ask.
        since: the first moment.
        service: of this service only.
        tags: with all of these tags, which must be among OAP's searchable log tags.
        limit: how many at most.

    Raises:
        OapError: OAP does not answer, or can't search for such a tag.
    """
    condition: dict[str, Any] = {"queryOrder": "DES"}
    if tags:
        condition["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
    if service:
        service_id = oap.service_id(service)
        if service_id is None:  # which would be any service, to OAP
            return []
        condition["serviceId"] = service_id
    found: list[LogLine] = []
    for duration in reversed(oap.durations(since)):
        paging = {"pageNum": 1, "pageSize": limit - len(found)}
        found += _read(oap, {**condition, "queryDuration": duration, "paging": paging})
        if len(found) >= limit:
            break
    return sorted(found, key=lambda line: -line.time)


def _read(oap: Oap, condition: dict[str, Any]) -> list[LogLine]:
    return [_line(item) for item in oap.query(_LINES, condition=condition)["found"]["logs"]]


def _line(item: dict[str, Any]) -> LogLine:
    tags = {tag["key"]: tag["value"] for tag in item["tags"] or ()}
    return LogLine(
        item["timestamp"],
        item["serviceName"] or "",
        tags.get("level", ""),
        item["content"] or "",
        item.get("serviceInstanceName") or "",
        item.get("traceId") or "",
        tags,
    )
