"""Finished segments as the bytes that OAP reads: protobuf's wire format, written by hand.

Building protobuf's own objects field by field was most of what tracing cost a request. Nearly all of a segment is the
same as in the one before, so those bytes are made once. `tests/test_encoding.py` reads back with protobuf what comes out.

Field numbers: https://github.com/apache/skywalking-data-collect-protocol (language-agent/Tracing.proto). A field's key is
`number << 3 | type`, with type 0 for whole numbers and 2 for what begins with its length.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from skywalking_background._faults import safe_text
from skywalking_background._internals import config
from skywalking_background._limits import STACK_CHARS, TAG_VALUE_CHARS, cut, cut_middle

if TYPE_CHECKING:
    from skywalking_background._internals import Segment, Span

_KINDS: Final = {"Entry": 0, "Exit": 1, "Local": 2}
_NO_PARENT: Final = b"\x10" + b"\xff" * 9 + b"\x01"  # parentSpanId -1
_COMMON_CHARS: Final = 200  # of what is kept for the next time
_SMALL: Final = [bytes((number,)) for number in range(128)]
_LOW: Final = [bytes((number | 128,)) for number in range(128)]  # seven bits that more follow on


def _varint(number: int) -> bytes:
    """Write a whole number of 0 or more: seven bits a byte, the lowest first."""
    written = b""
    while number > 127:  # noqa: PLR2004
        written += _LOW[number & 127]
        number >>= 7
    return written + _SMALL[number]


@lru_cache(maxsize=16)
def _high(number: int) -> bytes:
    return _varint(number)


def _time(milliseconds: int) -> bytes:
    """Write a time: all but its lowest 14 bits (16 seconds) were the same a moment ago."""
    if milliseconds < 1 << 14:
        return _varint(milliseconds)
    return _LOW[milliseconds & 127] + _LOW[milliseconds >> 7 & 127] + _high(milliseconds >> 14)


def _sized(key: bytes, data: bytes) -> bytes:
    size = len(data)
    return key + (_SMALL[size] if size < 128 else _varint(size)) + data  # noqa: PLR2004


def to_utf8(value: object) -> bytes:
    r"""Write text as OAP can read it: what UTF-8 or a database refuses (surrogates, NUL) becomes `\udcff`, `\x00`."""
    text = value if isinstance(value, str) else safe_text(value)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode(errors="backslashreplace")
    return data.replace(b"\0", rb"\x00") if b"\0" in data else data


def _text(key: bytes, value: object, limit: int = TAG_VALUE_CHARS) -> bytes:
    if not isinstance(value, str):
        value = safe_text(value)
    return _sized(key, to_utf8(value if len(value) <= limit else cut(value, limit)))


@lru_cache(maxsize=1024)
def _common_text(key: bytes, value: str) -> bytes:
    return _text(key, value)


def _name(key: bytes, value: object) -> bytes:
    """Write a name: most are one of a few, and short."""
    return _common_text(key, value) if isinstance(value, str) and len(value) <= _COMMON_CHARS else _text(key, value)


@lru_cache(maxsize=1024)
def _pair(key: str, value: str) -> bytes:
    return _text(b"\x0a", key) + _text(b"\x12", value)


@lru_cache(maxsize=8)
def _process(service: str, instance: str) -> bytes:
    return _text(b"\x22", service) + _text(b"\x2a", instance)


@lru_cache(maxsize=8)
def _parent_process(service: str, instance: str) -> bytes:
    return _text(b"\x2a", service) + _text(b"\x32", instance)


@lru_cache(maxsize=256)
def _sort(kind: str, layer: int, component: int, failed: bool) -> bytes:
    written = b""
    for key, number in ((b"\x40", _KINDS[kind]), (b"\x48", layer), (b"\x50", component), (b"\x58", int(failed))):
        written += key + _varint(number) if number else b""
    return written


def encode_segment(segment: Segment) -> bytes:
    """Write a finished segment as a `SegmentCollection` of one: put one after the other, such bytes are a larger one.

    Raises:
        TypeError, ValueError, AttributeError: a number, a kind or a layer is none.
    """
    parts = [_text(b"\x0a", segment.related_traces[0]), _text(b"\x12", segment.segment_id)]
    parts += [_sized(b"\x1a", _span(span)) for span in segment.spans]
    parts.append(_process(config.agent_name, config.agent_instance_name))
    if segment.is_size_limited:
        parts.append(b"\x30\x01")
    return _sized(b"\x0a", b"".join(parts))


def _span(span: Span) -> bytes:
    fields = span.__dict__
    number, parent = span.sid, span.pid
    parts = [
        b"\x08" + _varint(number) if number else b"",
        _NO_PARENT if parent < 0 else b"\x10" + _varint(parent) if parent else b"",
        b"\x18",
        _time(span.start_time),
        b"\x20",
        _time(span.end_time),
    ]
    # A span of few objects has no list until somebody asked for it; its references come with its context.
    if references := fields["refs"] if "refs" in fields else span.refs:
        parts += [_sized(b"\x2a", _reference(one)) for one in references if one.trace_id]
    parts.append(_name(b"\x32", span.op))
    if span.peer:
        parts.append(_text(b"\x3a", span.peer))
    parts.append(_sort(span.kind._name_, span.layer._value_, span.component._value_, bool(span.error_occurred)))
    if tags := fields.get("tags"):
        for tag in tags.values():
            parts += [_tag(one) for one in tag] if isinstance(tag, list) else [_tag(tag)]
    if logs := fields.get("logs"):
        parts += [_sized(b"\x6a", _log(one)) for one in logs]
    return b"".join(parts)


def _tag(tag: Any) -> bytes:  # noqa: ANN401  # the agent has no types
    if getattr(tag, "common", False):
        return _common_tag(tag.key, tag.val)
    return _sized(b"\x62", _name(b"\x0a", tag.key) + _text(b"\x12", tag.val))


@lru_cache(maxsize=1024)
def _common_tag(key: str, value: str) -> bytes:
    return _sized(b"\x62", _pair(key, value))


def _log(log: Any) -> bytes:  # noqa: ANN401
    written = b"\x08" + _time(int(log.timestamp * 1000))
    for item in log.items:
        value = item.val if isinstance(item.val, str) else safe_text(item.val)
        pair = _text(b"\x0a", item.key) + _sized(b"\x12", to_utf8(cut_middle(value, STACK_CHARS)))
        written += _sized(b"\x12", pair)
    return written


def _reference(reference: Any) -> bytes:  # noqa: ANN401
    parent = int(reference.span_id)
    return b"".join(
        (
            b"" if reference.ref_type == "CrossProcess" else b"\x08\x01",
            _text(b"\x12", reference.trace_id),
            _text(b"\x1a", reference.segment_id),
            b"\x20" + _varint(parent) if parent else b"",
            _parent_process(reference.service, reference.service_instance),
            _name(b"\x3a", reference.endpoint),
            _text(b"\x42", reference.client_address) if reference.client_address else b"",
        )
    )
