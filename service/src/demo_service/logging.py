"""Structured log lines, each with the ids of its trace and its task."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from skywalking_background import current_trace_id

task_id: ContextVar[str | None] = ContextVar("task_id", default=None)
"""The background task that the current code belongs to."""


def configure_logging() -> None:
    """Write every line as JSON to stdout: our own, uvicorn's and the tracing library's."""
    make_record = logging.getLogRecordFactory()

    def make_traced_record(*args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401  # logging's own signature
        record = make_record(*args, **kwargs)
        # On the record, not in a formatter: the agent sends the same record to OAP from another place.
        record.trace_id = current_trace_id()
        record.task_id = task_id.get()
        return record

    logging.setLogRecordFactory(make_traced_record)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s %(trace_id)s %(task_id)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's second copy of its messages
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
