"""Series of OAP as curves of a chart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tracing_console.data import MINUTES

if TYPE_CHECKING:
    from oap_query import Points


def curves(named: dict[str, Points]) -> list[dict[str, Any]]:
    """Make one curve of each series, with a gap where a minute has no value."""
    this_minute = int(time.time() // 60) * 60_000
    minutes = range(this_minute - MINUTES * 60_000, this_minute + 1, 60_000)
    return [
        {"name": name, "points": [[moment, points.get(moment)] for moment in minutes]}
        for name, points in named.items()
        if points
    ]
