"""Finished segments as the bytes that OAP reads: protobuf's wire format, written by hand.

Building protobuf's own objects field by field was a third of what tracing cost a request. Nearly all of a segment is
the same as in the one before, so those bytes are made once. `tests/test_encoding.py` reads them back with protobuf.

Field numbers: https://github.com/apache/skywalking-data-collect-protocol (language-agent/Tracing.proto). A field's key
is `number << 3 | type`, with type 0 for whole numbers and 2 for what begins with its length.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from skywalking_background._faults import safe_text
from skywalking_background._internals import Kind, config, to_utf8
from skywalking_background._light_spans import TASK_ADDRESS, CommonTag, HandlingSpan, RequestSpan, TaskSpan
from skywalking_background._limits import STACK_CHARS, TAG_VALUE_CHARS, cut, cut_middle

if TYPE_CHECKING:
    from skywalking.protocol.logging.Logging_pb2 import LogData

    from skywalking_background._internals import Segment, Span

_KINDS: Final = {"Entry": 0, "Exit": 1, "Local": 2}
ENDPOINT_AS_TAG: Final = os.environ.get("SKYWALKING_BACKGROUND_LOG_ENDPOINT", "").strip().lower() == "tag"
_COMMON_CHARS: Final = 200  # of what is kept for the next time
_SAME: Final = 2_000  # how many are kept
_SMALL: Final = [bytes((number,)) for number in range(128)]
_LOW: Final = [bytes((number | 128,)) for number in range(128)]  # seven bits that more follow on
_NO_PARENT: Final = b"\x10" + b"\xff" * 9 + b"\x01"  # parentSpanId -1


def _varint(number: int) -> bytes:
    """Write a whole number of 0 or more: seven bits a byte, the lowest first."""
    written = b""
    while number > 127:  # noqa: PLR2004
        written += _LOW[number & 127]
        number >>= 7
    return written + _SMALL[number]


_LENGTHS: Final = [_varint(number) for number in range(2_048)]  # nearly all that occur


def _length(size: int) -> bytes:
    return _LENGTHS[size] if size < len(_LENGTHS) else _varint(size)


@lru_cache(maxsize=64)
def _high(number: int) -> bytes:
    return _varint(number)


def _time(key: bytes, milliseconds: int) -> bytes:
    """Write a time: all but its lowest 14 bits (16 seconds) were the same a moment ago."""
    if milliseconds < 1 << 14:
        return key + _varint(milliseconds)
    return key + _LOW[milliseconds & 127] + _LOW[milliseconds >> 7 & 127] + _high(milliseconds >> 14)


def _times(start: int, end: int) -> bytes:
    """Write a span's start and end; both are mostly of the same 16 seconds."""
    if start < 1 << 14 or start >> 14 != end >> 14:
        return _time(b"\x18", start) + _time(b"\x20", end)
    high = _high(start >> 14)
    first = b"\x18" + _LOW[start & 127] + _LOW[start >> 7 & 127] + high
    return first + b"\x20" + _LOW[end & 127] + _LOW[end >> 7 & 127] + high


def _sized(key: bytes, data: bytes) -> bytes:
    return key + _length(len(data)) + data


def _text(key: bytes, value: Any, limit: int = TAG_VALUE_CHARS) -> bytes:  # noqa: ANN401  # should be text, may be not
    try:
        data: bytes = value.encode()
        size = len(data)
        if size < 128 and b"\0" not in data:  # noqa: PLR2004  # nearly all
            return key + _SMALL[size] + data
    except Exception:  # noqa: BLE001, S110  # no text, or none that is UTF-8
        pass
    return _sized(key, _odd_text(value, limit))


def _odd_text(value: object, limit: int) -> bytes:
    """Write any value as OAP can read it."""
    text = value if isinstance(value, str) else safe_text(value)
    return to_utf8(cut(text, limit))


@lru_cache(maxsize=1024)
def _common_text(key: bytes, value: str) -> bytes:
    return _text(key, value)


def _name(key: bytes, value: object) -> bytes:
    """Write a name: most are one of a few, and short."""
    return _common_text(key, value) if isinstance(value, str) and len(value) <= _COMMON_CHARS else _text(key, value)


@lru_cache(maxsize=8)
def _process(service: str, instance: str) -> bytes:
    return _text(b"\x22", service) + _text(b"\x2a", instance)


def encode_segment(segment: Segment) -> bytes:
    """Write a finished segment as a `SegmentCollection` of one: put one after the other, such bytes are a larger one.

    Raises:
        TypeError, ValueError, AttributeError: a number, a kind or a layer is none.
    """
    return _collection(segment, _process(config.agent_name, config.agent_instance_name))


def encode_segment_of(service: str, instance: str, segment: Segment) -> bytes:
    """Write the segment of another process in the same way."""
    return _collection(segment, _process.__wrapped__(service, instance))


def _collection(segment: Segment, process: bytes) -> bytes:
    parts = [_text(b"\x0a", segment.related_traces[0]), _text(b"\x12", segment.segment_id), process]
    if segment.is_size_limited:
        parts.append(b"\x30\x01")
    for span in segment.spans:
        data = _light_span(span) if span.__class__ in _LIGHT else _span(span)
        parts += (b"\x1a", _length(len(data)), data)
    data = b"".join(parts)
    return b"\x0a" + _length(len(data)) + data


_LIGHT: Final = frozenset({RequestSpan, HandlingSpan, TaskSpan})
_same: Final[dict[tuple[object, ...], bytes]] = {}
"""What spans have in common: of their class, their name, and the tags with one of a few values."""


def _light_span(span: Span) -> bytes:
    """Write a span of few objects: most of it is the same as in the one before."""
    fields = span.__dict__
    if "logs" in fields or "kind" in fields or "layer" in fields or "component" in fields or type(span.op) is not str:
        return _span(span)
    common: list[object] = [span.op, span.__class__, span.error_occurred]
    rest = b""
    if "tags" in fields:
        for tag in span.tags.values():
            if tag.__class__ is CommonTag:
                common.append(tag)
            else:
                rest += _tags(tag)
    key = tuple(common)
    if (same := _same.get(key)) is None:
        same = _remember(key, span)
    if "refs" in fields:
        rest += b"".join([_reference(one, span.kind) for one in span.refs if one.trace_id])
    elif not span.sid and span.context.parent is not None:
        rest += _reference(span.context.parent, span.kind)
    if span.peer:
        rest += _text(b"\x3a", span.peer)
    return same + _times(span.start_time, span.end_time) + rest


def _remember(key: tuple[object, ...], span: Span) -> bytes:
    same = _place(span) + _head(span) + b"".join([_tag(tag) for tag in span.tags.values() if type(tag) is CommonTag])
    if len(_same) < _SAME and len(span.op) <= _COMMON_CHARS:
        _same[key] = same
    return same


def _span(span: Span) -> bytes:
    parts = [_place(span), _times(span.start_time, span.end_time), _head(span)]
    parts += [_reference(one, span.kind) for one in span.refs if one.trace_id]
    if span.peer:
        parts.append(_text(b"\x3a", span.peer))
    parts += [_tags(tag) for tag in span.tags.values()]
    parts += [_sized(b"\x6a", _log(log)) for log in span.logs]
    return b"".join(parts)


def _place(span: Span) -> bytes:
    """Write the span's number, and its parent's."""
    number, parent = span.sid, span.pid
    written = b"\x08" + _varint(number) if number else b""
    if parent < 0:
        return written + _NO_PARENT
    return written + b"\x10" + _varint(parent) if parent else written


def _head(span: Span) -> bytes:
    """Write the span's name and what sort of span it is."""
    sort = span.kind._name_, span.layer._value_, span.component._value_, bool(span.error_occurred)
    return _name(b"\x32", span.op) + _sort(*sort)


def _tags(tag: Any) -> bytes:  # noqa: ANN401  # a tag of the agent's, or the list of those under one key
    return b"".join([_tag(one) for one in tag]) if isinstance(tag, list) else _tag(tag)


@lru_cache(maxsize=256)
def _sort(kind: str, layer: int, component: int, failed: bool) -> bytes:
    written = b""
    for key, number in ((b"\x40", _KINDS[kind]), (b"\x48", layer), (b"\x50", component), (b"\x58", int(failed))):
        written += key + _varint(number) if number else b""
    return written


def _tag(tag: Any) -> bytes:  # noqa: ANN401  # the agent has no types
    return _sized(b"\x62", _name(b"\x0a", tag.key) + _text(b"\x12", tag.val))


def _log(log: Any) -> bytes:  # noqa: ANN401
    written = _time(b"\x08", int(log.timestamp * 1000))
    for item in log.items:
        value = item.val if isinstance(item.val, str) else safe_text(item.val)
        pair = _text(b"\x0a", item.key) + _text(b"\x12", cut_middle(value, STACK_CHARS), 2 * STACK_CHARS)
        written += _sized(b"\x12", pair)
    return written


def encode_log(log: LogData) -> bytes:
    """Write a copied log line; where OAP is set up for it, with its endpoint in a tag.

    OAP from 10.2 on takes the endpoint of the field off the list of a service's endpoints (docs/upstream-last-ping.md).
    """
    if ENDPOINT_AS_TAG and log.endpoint:
        log.tags.data.add(key="endpoint", value=log.endpoint)
        log.ClearField("endpoint")
    written: bytes = log.SerializeToString()
    return written


def encode_line(  # noqa: PLR0913  # what a line consists of
    endpoint: str,
    text: str,
    place: tuple[str, str, int],
    *,
    same: tuple[tuple[str, str], ...],
    own: tuple[tuple[str, str], ...],
    milliseconds: int,
) -> bytes:
    """Write a log line of our own.

    Args:
        endpoint: that of the segment.
        text: the line.
        place: trace, segment and span that it belongs to.
        same: tags that many lines have in common: their bytes are made once.
        own: its other tags.
        milliseconds: when it was written, since the epoch.
    """
    trace_id, segment_id, span_id = place
    if ENDPOINT_AS_TAG:
        same = (*same, ("endpoint", endpoint))
    context = _text(b"\x0a", trace_id) + _text(b"\x12", segment_id)
    if span_id:
        context += b"\x18" + _varint(span_id)
    pairs = _same_pairs(same) + b"".join([_pair(key, value) for key, value in own])
    written = _text(b"\x0a", text)
    return (
        _time(b"\x08", milliseconds)
        + _line_head(config.agent_name, config.agent_instance_name, "" if ENDPOINT_AS_TAG else endpoint)
        + _sized(b"\x2a", b"\x0a\x04text" + b"\x12" + _length(len(written)) + written)
        + _sized(b"\x32", context)
        + _sized(b"\x3a", pairs)
    )


def _pair(key: str, value: str) -> bytes:
    return _sized(b"\x0a", _name(b"\x0a", key) + _text(b"\x12", value))


@lru_cache(maxsize=1024)
def _same_pairs(pairs: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join([_pair(key, value) for key, value in pairs])


@lru_cache(maxsize=1024)
def _line_head(service: str, instance: str, endpoint: str) -> bytes:
    return _text(b"\x12", service) + _text(b"\x1a", instance) + (_text(b"\x22", endpoint) if endpoint else b"")


def _reference(reference: Any, kind: Kind) -> bytes:  # noqa: ANN401
    address = reference.client_address
    if address == TASK_ADDRESS and kind is Kind.Entry:
        address = ""  # OAP would draw a call from there
    service, instance, endpoint = reference.service, reference.service_instance, reference.endpoint
    common = _origin if type(endpoint) is str and len(endpoint) <= _COMMON_CHARS else _origin.__wrapped__
    data = (
        _text(b"\x12", reference.trace_id)
        + _text(b"\x1a", reference.segment_id)
        + common(reference.ref_type, int(reference.span_id), service, instance, endpoint, address)
    )
    return b"\x2a" + _length(len(data)) + data


@lru_cache(maxsize=1024)
def _origin(*names: Any) -> bytes:  # noqa: ANN401
    """Write what references to one endpoint have in common."""
    kind, span_id, service, instance, endpoint, address = names
    written = b"" if kind == "CrossProcess" else b"\x08\x01"
    written += b"\x20" + _varint(span_id) if span_id else b""
    written += _text(b"\x2a", service) + _text(b"\x32", instance) + _text(b"\x3a", endpoint)
    return written + _text(b"\x42", address) if address else written
