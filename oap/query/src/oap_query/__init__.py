"""Traces as OAP returns them, whichever of its two trace APIs its storage has.

`Oap` asks, `build` joins the spans of a trace to trees, `outline` writes such trees down for a comparison.
`segments` and `summaries` look at many traces at once, `read` reads metrics, `alarms` the alarms, `started` and
`long_tasks` what runs now.
"""

from oap_query._alarms import Alarm, alarms, tells_recovery
from oap_query._client import Oap, Span
from oap_query._errors import OapAwayError, OapError
from oap_query._logs import LogLine, log_lines, search_lines
from oap_query._metrics import Metric, Points, endpoints, instances, read
from oap_query._running import Started, arrived, has_arrived, is_silent, long_tasks, refreshed, started, started_of
from oap_query._search import Segment, Summary, failed, is_request, segments, services, summaries, whole
from oap_query._tree import Node, build, outline

__all__ = [
    "Alarm",
    "LogLine",
    "Metric",
    "Node",
    "Oap",
    "OapAwayError",
    "OapError",
    "Points",
    "Segment",
    "Span",
    "Started",
    "Summary",
    "alarms",
    "arrived",
    "build",
    "endpoints",
    "failed",
    "has_arrived",
    "instances",
    "is_request",
    "is_silent",
    "log_lines",
    "long_tasks",
    "outline",
    "read",
    "refreshed",
    "search_lines",
    "segments",
    "services",
    "started",
    "started_of",
    "summaries",
    "tells_recovery",
    "whole",
]
