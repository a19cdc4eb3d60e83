"""Traces as OAP returns them, whichever of its two trace APIs its storage has.

`Oap` asks, `build` joins the spans of a trace to trees, `outline` writes such trees down for a comparison.
`segments` and `summaries` look at many traces at once, `read` reads metrics.
"""

from oap_query._client import Oap, Span
from oap_query._errors import OapAwayError, OapError
from oap_query._metrics import Alarm, LogLine, Metric, Points, alarms, endpoints, instances, log_lines, read
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
    "Summary",
    "alarms",
    "build",
    "endpoints",
    "failed",
    "instances",
    "is_request",
    "log_lines",
    "outline",
    "read",
    "segments",
    "services",
    "summaries",
    "whole",
]
