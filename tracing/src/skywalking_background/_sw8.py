"""The `sw8` request headers: https://skywalking.apache.org/docs/main/latest/en/api/x-process-propagation-headers-v3/."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from skywalking_background._internals import SegmentRef
from skywalking_background._limits import HEADER_ID_CHARS, HEADER_TEXT_CHARS

_FIELDS: Final = 8
_MAX_BYTES: Final = 2048  # the specification's limit for the whole header
NOTHING: Final = b"1-------"  # what the Python agent sends where its own caller was not sampled


_MAX_SPAN_ID: Final = 2**31 - 1


class Caller(SegmentRef):  # type: ignore[misc]  # the agent has no types
    """The caller's place in its trace, which the request goes on from.

    Args:
        ids: its trace id and segment id.
        span_id: the number of its span.
        names: its service, instance and endpoint, and the address under which it knows this service.
        correlation: what the caller passes on to all that it calls.
    """

    ref_type = "CrossProcess"

    def __init__(self, ids: list[str], span_id: int, names: list[str], correlation: dict[str, str]) -> None:
        self.trace_id, self.segment_id = ids
        self.span_id = span_id
        self.service, self.service_instance, self.endpoint, self.client_address = names
        self.correlation = correlation


class SuppressedError(Exception):
    """The caller says that it is not traced, so the callee is not either."""


def parse(sw8: bytes, correlation: bytes) -> Caller | None:
    """Read the caller's place in its trace; `None` for a header that is not well formed.

    The agent's own `Carrier` raises on bad base64 and switches tracing off for the request on any other defect. A
    stranger's broken header must do neither: the request starts a trace of its own. The trace id is sent back in a
    response header and stands in log lines, so it is printable ASCII of a bounded length, or the header is ignored.

    Raises:
        SuppressedError: the caller asks not to be traced.
    """
    if sw8 == NOTHING or sw8.startswith(b"0-"):
        raise SuppressedError
    parts = sw8.split(b"-")
    if len(parts) != _FIELDS or len(sw8) > _MAX_BYTES or parts[0] != b"1" or not parts[3].isdigit():
        return None
    if (span_id := int(parts[3])) > _MAX_SPAN_ID:
        return None
    try:
        ids = [_id(part) for part in parts[1:3]]
        names = [_name(part) for part in parts[4:]]
        pairs = [pair.split(b":") for pair in correlation[:_MAX_BYTES].split(b",")] if correlation else []
        values = {_name(key): _text(value) for key, value in pairs}
    except ValueError:  # bad base64, bad UTF-8, a pair without a value, or not what may stand there
        return None
    return Caller(ids, span_id, names, values)


def _id(field: bytes) -> str:
    text = _text(field)
    if not text.isascii() or " " in text or not 0 < len(text) <= HEADER_ID_CHARS:
        raise ValueError
    return text


def _name(field: bytes) -> str:
    text = _text(field)
    if not text:
        raise ValueError
    return text


def _text(field: bytes) -> str:
    try:
        text = base64.b64decode(field, validate=True).decode()
    except binascii.Error as error:
        raise ValueError from error
    if not text.isprintable() or len(text) > HEADER_TEXT_CHARS:
        raise ValueError
    return text
