"""How large things may become, in one place: what is cut, what travels together, what is kept.

OAP takes messages of up to 50 MB (`SW_CORE_GRPC_MAX_MESSAGE_SIZE`), a proxy in front of it often only 4 MB.
"""

from __future__ import annotations

import os
from typing import Final


def _number(name: str, default: int) -> int:
    text = os.environ.get(name)
    if not text:
        return default
    if not text.isdecimal() or not int(text):
        message = f"{name}={text!r} is not a whole number above 0"
        raise ValueError(message)
    return int(text)


def _seconds(name: str, default: float) -> float | None:
    text = os.environ.get(name, "").strip().lower()
    if text in {"off", "false", "no", "never"}:
        return None
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        message = f"{name}={text!r} is neither a number of seconds nor off"
        raise ValueError(message)
    return seconds


SEGMENT_SPANS: Final = _number("SKYWALKING_BACKGROUND_SEGMENT_SPANS", 300)
"""Finished spans in a segment, before it is sent and work that is still running goes on in a new one.

As many as a segment of SkyWalking's Java agent may have.
"""

SEGMENT_SECONDS: Final = _number("SKYWALKING_BACKGROUND_SEGMENT_SECONDS", 30)
"""Seconds that a finished span waits at the most for the end of the work around it, before it is sent."""

START_REPORT_SECONDS: Final = _seconds("SKYWALKING_BACKGROUND_START_REPORT_SECONDS", 2)
"""Seconds that a task has run for when its start is reported to OAP; `None` for never."""

EVENT_SECONDS: Final = _seconds("SKYWALKING_BACKGROUND_EVENT_SECONDS", 60)
"""Seconds that a task has run for when it gets a SkyWalking event besides; `None` for never."""

JOURNAL_FSYNC_SECONDS: Final = _seconds("SKYWALKING_BACKGROUND_JOURNAL_FSYNC_SECONDS", 1)
"""Seconds between two `fsync` of the journal, 0 for one with each write; `None` leaves it to the system."""

JOURNAL_BYTES: Final = 64_000_000
"""Bytes of a process's journal, of which as much again is there for the moment in which it is rewritten."""

TAG_VALUE_CHARS: Final = 4_000
"""Characters of a tag's value, an operation name, a peer."""

ERROR_TEXT_CHARS: Final = 4_000
"""Characters of an error's message."""

STACK_CHARS: Final = 16_000
"""Characters of an error's stack trace, and of any other value in a span's log."""

LOG_CHARS: Final = 16_000
"""Characters of a log line that is copied into the trace.

OAP's SQL storages take 20,000. Of a longer one they refuse the whole batch, the lines of others included.
"""

HEADER_ID_CHARS: Final = 128
"""Characters of an id in a caller's `sw8` header; SkyWalking's agents write 32 to 60."""

HEADER_TEXT_CHARS: Final = 512
"""Characters of a name in a caller's `sw8` header: OAP's own limits are 50 to 150."""

BATCH_ITEMS: Final = 500
"""Segments or log lines in one call."""
BATCH_BYTES: Final = 2_000_000
"""Bytes in one call: a batch ends before the item that would exceed it. One item that is larger travels alone."""

QUEUE_BYTES: Final = 64_000_000
"""Bytes of segments, and as many of log lines, that wait for OAP; what exceeds them is dropped and counted.

The number of items is bounded by the agent's own `SW_AGENT_TRACE_REPORTER_MAX_BUFFER_SIZE` and
`SW_AGENT_LOG_REPORTER_MAX_BUFFER_SIZE` (10 000 each).
"""


def cut(text: str, limit: int) -> str:
    """Return the text, or its first `limit` characters and how many follow."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} characters more)"


def cut_middle(text: str, limit: int) -> str:
    """Return the text, or its beginning and its end: a stack trace says most in its last lines."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half:,} characters more) …\n{text[-half:]}"
