"""How large things may be, in one place: what is cut, what travels together, what is kept.

OAP takes messages of up to 50 MB (`SW_CORE_GRPC_MAX_MESSAGE_SIZE`), a proxy in front of it often only 4 MB.
"""

from __future__ import annotations

from typing import Final

TAG_VALUE_CHARS: Final = 4_096
"""A tag's value; longer ones are cut."""
ERROR_TEXT_CHARS: Final = 8_192
"""The message of an error, in the span's log."""
STACK_CHARS: Final = 65_536
"""The stack trace of an error, in the span's log; its end, which tells most, is kept."""

BATCH_ITEMS: Final = 500
"""Segments or log lines in one call."""
BATCH_BYTES: Final = 2_000_000
"""Bytes in one call: a batch ends before the item that would exceed it. One item that is larger travels alone."""

QUEUE_BYTES: Final = 64_000_000
"""Bytes of segments, and as many of log lines, that wait for OAP; what exceeds them is dropped and counted.

The number of items is bounded by the agent's own `SW_AGENT_TRACE_REPORTER_MAX_BUFFER_SIZE` and
`SW_AGENT_LOG_REPORTER_MAX_BUFFER_SIZE` (10 000 each).
"""
