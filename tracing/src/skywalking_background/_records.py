"""What a journal's file holds: a line for each thing that happened, and the tasks that are open after all of them.

A line is a checksum (eight hexadecimal digits, CRC-32), a space and JSON. Lines stand for themselves: one that is torn
or damaged costs itself, and those after it can be read. Their order does not matter either.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from skywalking_background._faults import safe_text
from skywalking_background._internals import Component, Layer
from skywalking_background._limits import cut

if TYPE_CHECKING:
    from skywalking_background._light_spans import TaskSpan

VERSION: Final = 1
_NAME_CHARS: Final = 500
_VALUE_CHARS: Final = 300
_TAGS: Final = 20
_CHECKSUM_CHARS: Final = 8
LOCAL: Final = ("Local", int(Layer.Unknown.value), int(Component.FastAPI.value), "")
"""What most tasks' spans are."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The place that a task goes on from, as its own process knew it. The encoder takes it for the agent's own."""

    ref_type: str
    trace_id: str
    segment_id: str
    span_id: int
    service: str
    service_instance: str
    endpoint: str
    client_address: str | None


@dataclass(slots=True)
class Task:
    """A task that has begun."""

    segment_id: str
    trace_id: str
    name: str
    start: int
    """In ms since the epoch."""
    parent: Reference | None
    tags: dict[str, str]
    event: str = ""
    """The id of its event, once one was begun."""
    sort: tuple[str, int, int, str] = LOCAL
    """The span's kind, the numbers of its layer and component, its peer."""

    def line(self) -> bytes:
        """Write it down."""
        parent = self.parent
        reference = None
        if parent is not None:
            reference = [getattr(parent, key) for key in Reference.__slots__]
        record: dict[str, Any] = {
            "begun": self.segment_id,
            "trace": self.trace_id,
            "name": self.name,
            "start": self.start,
        }
        if self.event:
            record["event_id"] = self.event
        if self.sort != LOCAL:
            record["sort"] = self.sort
        return line({**record, "parent": reference, "tags": self.tags})


@dataclass(slots=True)
class Contents:
    """What a file says."""

    header: dict[str, Any] | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    """Those that are open, by their segment's id."""
    damaged: int = 0
    """Lines that can't be read."""


def line(record: dict[str, Any]) -> bytes:
    """Write a record with its checksum."""
    data = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def header(service: str, instance: str, pid: int) -> bytes:
    """Write the first line of a file: whose it is."""
    return line({"journal": VERSION, "service": service, "instance": instance, "pid": pid})


def ended(segment_id: str) -> bytes:
    """Write that a task has ended."""
    return line({"ended": segment_id})


def moved(old: str, new: str) -> bytes:
    """Write that what is open of a segment goes on in another one."""
    return line({"moved": [old, new]})


def event(segment_id: str, event_id: str) -> bytes:
    """Write that a task's event was begun."""
    return line({"event": event_id, "of": segment_id})


def describe(span: TaskSpan) -> Task:
    """Take down of an open span what its segment would need; in another thread than the task's."""
    place = span.place()
    refs = span.made("refs") or ()
    parent = refs[0] if refs else place.parent
    tags: dict[str, str] = {}
    for key, tag in list((span.made("tags") or {}).items())[:_TAGS]:
        last = tag[-1] if isinstance(tag, list) and tag else tag  # the agent keeps several under one key
        tags[cut(safe_text(key), _VALUE_CHARS)] = cut(safe_text(getattr(last, "val", "")), _VALUE_CHARS)
    reference = None
    if parent is not None and parent.trace_id:
        reference = Reference(
            parent.ref_type, str(parent.trace_id), str(parent.segment_id), int(parent.span_id), parent.service,
            parent.service_instance, cut(safe_text(parent.endpoint), _NAME_CHARS), parent.client_address,
        )  # fmt: skip
    name = cut(safe_text(span.op), _NAME_CHARS)
    sort = (
        span.kind.name,
        int(span.layer.value),
        int(span.component.value),
        cut(safe_text(span.peer or ""), _NAME_CHARS),
    )
    return Task(place.segment_id, place.trace_id, name, span.start_time, reference, tags, sort=sort)


def read(data: bytes) -> Contents:
    """Read a file as far as it can be read."""
    found = Contents()
    reader = _Reader()
    for text in data.split(b"\n"):
        try:
            if text:
                reader.take(_record(text))
        except (KeyError, TypeError, ValueError):  # torn, or of another version
            found.damaged += 1
    found.header = reader.header
    found.tasks = reader.open_tasks()
    return found


def _record(text: bytes) -> dict[str, Any]:
    body = text[_CHECKSUM_CHARS + 1 :]
    if text[: _CHECKSUM_CHARS + 1] != b"%08x " % zlib.crc32(body):
        message = "the checksum does not fit"
        raise ValueError(message)
    record: dict[str, Any] = json.loads(body)
    return record


class _Reader:
    """What a file's lines said so far."""

    def __init__(self) -> None:
        self.header: dict[str, Any] | None = None
        self.begun: dict[str, Task] = {}
        self.ended: set[str] = set()
        self.moves: dict[str, str] = {}
        self.events: dict[str, str] = {}

    def take(self, record: dict[str, Any]) -> None:
        """Take a line in."""
        if "begun" in record:
            self.begun[record["begun"]] = _task(record)
        elif "ended" in record:
            self.ended.add(str(record["ended"]))
        elif "moved" in record:
            old, new = record["moved"]
            self.moves[str(old)] = str(new)
        elif "event" in record:
            self.events[str(record["of"])] = str(record["event"])
        elif "journal" in record:
            self.header = record

    def open_tasks(self) -> dict[str, Task]:
        """Return the tasks without an end, under the segment that each was in last."""
        found = {}
        for segment_id, task in self.begun.items():
            ids = [segment_id]
            while (then := self.moves.get(ids[-1])) is not None and then not in ids:
                ids.append(then)
            if not self.ended.intersection(ids):
                task.segment_id = ids[-1]
                task.event = next((self.events[one] for one in ids if one in self.events), task.event)
                found[task.segment_id] = task
        return found


def _task(record: dict[str, Any]) -> Task:
    parent = record["parent"]
    return Task(
        str(record["begun"]),
        str(record["trace"]),
        str(record["name"]),
        int(record["start"]),
        None if parent is None else Reference(*parent),
        {str(key): str(value) for key, value in record["tags"].items()},
        str(record.get("event_id", "")),
        _sort(*record.get("sort", LOCAL)),
    )


def _sort(kind: str, layer: int, component: int, peer: str) -> tuple[str, int, int, str]:
    return str(kind), int(layer), int(component), str(peer)
