"""The `sw8` request headers: https://skywalking.apache.org/docs/main/latest/en/api/x-process-propagation-headers-v3/."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from skywalking.trace.carrier import Carrier
from skywalking.trace.segment import SegmentRef

_FIELDS: Final = 8
_MAX_BYTES: Final = 2048  # the specification's limit for the whole header
_NOTHING: Final = b"1-------"  # what the Python agent sends where its own caller was not sampled


class Caller(SegmentRef):  # type: ignore[misc]  # the agent has no types
    """The caller's place in its trace, which the request goes on from."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier)
        self.correlation: dict[str, str] = carrier.correlation_carrier.correlation


class SuppressedError(Exception):
    """The caller says that it is not traced, so the callee is not either."""


def parse(sw8: bytes, correlation: bytes) -> Caller | None:
    """Read the caller's place in its trace; `None` for a header that is not well formed.

    The agent's own `Carrier` raises on bad base64 and switches tracing off for the request on any other defect. A
    stranger's broken header must do neither: the request starts a trace of its own.

    Raises:
        SuppressedError: the caller asks not to be traced.
    """
    if sw8 == _NOTHING or sw8.startswith(b"0-"):
        raise SuppressedError
    parts = sw8.split(b"-")
    if len(parts) != _FIELDS or len(sw8) > _MAX_BYTES or parts[0] != b"1" or not parts[3].isdigit():
        return None
    try:
        trace_id, segment_id, service, instance, endpoint, peer = map(_text, (*parts[1:3], *parts[4:]))
        items = [pair.split(b":") for pair in correlation.split(b",")] if correlation else []
        values = {_text(key): _text(value) for key, value in items}
    except ValueError:  # bad base64, bad UTF-8, a pair without a value
        return None
    carrier = Carrier(trace_id, segment_id, str(int(parts[3])), service, instance, endpoint, peer, values)
    return Caller(carrier) if carrier.is_valid else None


def _text(field: bytes) -> str:
    try:
        text = base64.b64decode(field, validate=True).decode()
    except binascii.Error as error:
        raise ValueError from error
    if "\0" in text:
        raise ValueError
    return text
