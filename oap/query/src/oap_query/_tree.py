"""Span trees: how the spans of a trace hang together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from oap_query._client import Span


@dataclass
class Node:
    """A span with the spans that it caused, the earliest first."""

    span: Span
    reference: str = ""
    """How the span's segment refers to its parent; empty within a segment."""
    children: list[Node] = field(default_factory=list)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """Go through the tree from the top, each node with its depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def build(spans: Iterable[Span]) -> list[Node]:
    """Join spans to trees: one root for a whole trace, more where a parent has not arrived."""
    nodes = {(span.segment_id, span.span_id): Node(span) for span in spans}
    roots: list[Node] = []
    # Of what began in the same ms, what belongs to the parent's own segment comes before what it left behind.
    for node in sorted(nodes.values(), key=lambda node: (node.span.start, bool(node.span.refs), node.span.span_id)):
        span = node.span
        parent = nodes.get((span.segment_id, span.parent_span_id))
        if parent is None and span.refs:
            segment_id, span_id, node.reference = span.refs[0]
            parent = nodes.get((segment_id, span_id))
        (roots if parent is None else parent.children).append(node)
    return roots


def outline(roots: Iterable[Node]) -> str:
    """Write the trees down without their times: one line a span, indented by two spaces a level.

    A line has the kind and the name, then the status code, the kind of reference, and `failed` for an error, as far as
    the span has them. Siblings of one start are in the order of their names, so that equal trees give equal text.
    """
    lines = []
    for root in roots:
        for depth, node in root.walk():
            node.children.sort(key=lambda child: (bool(child.reference), child.span.name))
            span = node.span
            status = span.tags.get("http.status_code", "")
            words = (span.kind, span.name, status, node.reference, "failed" if span.error else "")
            lines.append("  " * depth + " ".join(word for word in words if word))
    return "\n".join(lines)
