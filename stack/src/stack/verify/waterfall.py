"""How span trees look in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from oap_query import Node

BAR_CHARACTERS: Final = 40
"""The length of the whole trace."""


def waterfall(roots: list[Node]) -> Table:
    """Draw the trees as a waterfall: a row a span, with start and duration in ms."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, justify in (("span", "left"), ("start ms", "right"), ("duration ms", "right"), ("", "left")):
        table.add_column(title, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    rows = [row for root in roots for row in root.walk()]
    if not rows:
        return table
    begin = min(node.span.start for _, node in rows)
    total = max(1, max(node.span.end for _, node in rows) - begin)
    for depth, node in rows:
        span = node.span
        colour = "red" if span.error else {"Entry": "green", "Exit": "yellow"}.get(span.kind, "cyan")
        offset = (span.start - begin) * BAR_CHARACTERS // total
        length = max(1, -(-span.duration * BAR_CHARACTERS // total))
        label = Text("  " * depth + ("⇢ " if node.reference else "") + span.name, style=colour)
        bar = Text(" " * min(offset, BAR_CHARACTERS - 1) + "━" * min(length, BAR_CHARACTERS), style=colour)
        table.add_row(label, f"{span.start - begin:,}", f"{span.duration:,}", bar)
    return table
