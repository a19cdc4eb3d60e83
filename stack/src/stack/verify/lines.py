"""The lines of a contract, shown one by one and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oap_query import build
from rich.markup import escape

from stack.verify.waterfall import waterfall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oap_query import Span
    from rich.console import Console

    from stack.document import Found

Line = tuple[bool, str]
"""Whether a line of the contract holds, and what it says."""


def holds(text: str) -> Line:
    """Return a line that holds."""
    return True, text


def broken(*sentences: str) -> Line:
    """Return a line that does not hold: what is wrong, why, and what to do about it."""
    return False, ": ".join(sentences)


class Lines:
    """Shows lines under titles, and keeps them for `JSON=1`.

    Args:
        console: where they are shown.
        found: gets `holds`, `broken` (how many lines are), and `checks`: for each its `title`, `trace_id` (null
            without a trace), and its `lines`, each with `holds` and `text`.
    """

    def __init__(self, console: Console, found: Found) -> None:
        self._console = console
        self._found = found
        self._checks: list[dict[str, Any]] = []
        self.broken = 0

    def show(
        self, title: str, lines: Iterable[Line], *, trace_id: str = "", spans: Sequence[Span] | None = None
    ) -> None:
        """Show lines, below the waterfall of a trace where they are about one."""
        trace = "" if spans is None else f"  trace {trace_id or 'none'}"
        self._console.print(f"\n[bold]{escape(title)}[/]{trace}")
        if spans is not None:
            self._console.print(waterfall(build(spans)))
        told = []
        for good, text in lines:
            self._console.print("[green]  ok[/]  " if good else "[red]  BROKEN[/]  ", end="")
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
            told.append({"holds": good, "text": text})
            self.broken += not good
        self._checks.append({"title": title, "trace_id": trace_id or None, "lines": told})
        self._found.update(holds=self.broken == 0, broken=self.broken, checks=self._checks)
