"""Traces as OAP returns them, whichever of its two trace APIs its storage has.

`Oap` asks, `build` joins the spans of a trace to trees, `outline` writes such trees down for a comparison.
`segments` looks at many traces at once.
"""

from oap_query._client import Oap, OapError, Span
from oap_query._search import Segment, segments
from oap_query._tree import Node, build, outline

__all__ = ["Node", "Oap", "OapError", "Segment", "Span", "build", "outline", "segments"]
