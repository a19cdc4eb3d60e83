"""Alarms, and when their cause was over."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oap_query._errors import reads_answers

if TYPE_CHECKING:
    from datetime import datetime

    from oap_query._client import Oap

_FIELDS: Final = "id message startTime scope tags { key value }"


@dataclass(frozen=True)
class Alarm:
    """An alarm that OAP raised; times in ms since the epoch."""

    message: str
    start: int
    scope: str
    level: str
    recovered: int | None = None
    """When its cause was over; `None` before that, and from an OAP that does not say."""
    service: str = ""
    """Whose alarm it is: the service's name; empty for alarms about a relation of two."""
    part: str = ""
    """The name of the service's endpoint or instance, where the alarm is about one."""


def alarms(oap: Oap, start: datetime, limit: int = 20) -> list[Alarm]:
    """Return the alarms since then (with a timezone), the newest first."""
    return _alarms(oap, start, limit, tells=tells_recovery(oap))


@reads_answers
def tells_recovery(oap: Oap) -> bool:
    """Say whether this OAP reports when an alarm's cause was over: those before 10.4 do not."""
    found = oap.query('{ __type(name: "AlarmMessage") { fields { name } } }')["__type"]
    return any(item["name"] == "recoveryTime" for item in (found or {"fields": ()})["fields"])


@reads_answers
def _alarms(oap: Oap, start: datetime, limit: int, *, tells: bool) -> list[Alarm]:
    fields = f"{_FIELDS} recoveryTime" if tells else _FIELDS
    text = f"""query ($duration: Duration!, $paging: Pagination!) {{
        getAlarm(duration: $duration, paging: $paging) {{ msgs {{ {fields} }} }} }}"""
    found = oap.query(text, duration=oap.duration(start, step="MINUTE"), paging={"pageNum": 1, "pageSize": limit})
    return [_alarm(item) for item in found["getAlarm"]["msgs"]]


def _alarm(item: dict[str, Any]) -> Alarm:
    scope = item["scope"] or ""
    service, part = ("", "") if scope.endswith("Relation") else _names(item["id"] or "")
    level = next((tag["value"] for tag in item["tags"] or () if tag["key"] == "level"), "")
    return Alarm(item["message"], int(item["startTime"]), scope, level, item.get("recoveryTime") or None, service, part)


def _names(entity_id: str) -> tuple[str, str]:
    """Read the names out of an id: `base64(service).1`, or that and `_base64(endpoint or instance)`."""
    service, _, part = entity_id.partition("_")
    return _text(service.partition(".")[0]), _text(part)


def _text(encoded: str) -> str:
    try:
        return b64decode(encoded, validate=True).decode()
    except (Error, UnicodeDecodeError, ValueError):
        return ""
