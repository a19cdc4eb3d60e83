"""One line per request with the id of its trace, so that OAP can be asked for exactly these; links to what failed."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from locust import events

if TYPE_CHECKING:
    from locust.env import Environment

logger = logging.getLogger(__name__)
SHOWN = 10
"""Failures that are printed one by one."""

_file: TextIO | None = None
_failures = 0


@events.init.add_listener
def _open(environment: Environment, **_: object) -> None:
    """Open the file: each process has its own, as workers may share the folder."""
    global _file  # noqa: PLW0603  # one per process, as Locust's events
    folder = environment.parsed_options.results
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _file = (Path(folder) / f"requests-{os.getpid()}.jsonl").open("w", buffering=1)


def note(
    environment: Environment,
    name: str,
    response: Any,  # noqa: ANN401  # Locust's own
    tasks: int,
    seconds: float | None,
) -> None:
    """Keep what became of a request that left `tasks` behind, each for so many s; `None` is the service's default.

    Of the failures the first are printed, each with the page of its trace.
    """
    meta = response.request_meta
    error = meta["exception"]
    trace_id = (response.headers or {}).get("X-Trace-Id", "")
    if _file:
        if response.status_code >= 400:  # noqa: PLR2004  # refused: nothing was left behind
            tasks = 0
        line = [round(meta["start_time"], 3), round(meta["response_time"], 2), name, response.status_code]
        _file.write(json.dumps([*line, trace_id, tasks, seconds, str(error) if error else ""]) + "\n")
    if error:
        _tell(environment, name, error, trace_id)


def _tell(environment: Environment, name: str, error: object, trace_id: str) -> None:
    global _failures  # noqa: PLW0603  # one per process
    _failures += 1
    if _failures <= SHOWN:
        link = environment.parsed_options.trace_url.format(trace_id=trace_id) if trace_id else "no trace"
        logger.warning("%s failed: %s (%s)", name, error, link)
    if _failures == SHOWN:
        logger.warning("further failures are only counted")
