"""What SkyWalking shows of the comparison's work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from oap_query import Oap, Span
    from tracing_claims.variants import Variant

PAUSE_SECONDS: Final = 3.0
"""OAP writes down what it got every few seconds."""


@dataclass
class Shown:
    """The work of some traces, as SkyWalking has it; by the work's id where its span has it."""

    complete: int = 0
    """Traces in which the work has its span, and that did not fail."""
    ended: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    """Those whose span is marked as failed, such as `task.outcome=crashed`."""
    good: set[str] = field(default_factory=set)
    """The traces that are complete."""
    failed: set[str] = field(default_factory=set)
    """The traces in which a span of the work is marked as failed."""

    def unfinished(self, traces: Iterable[str]) -> list[tuple[str, bool]]:
        """Return those of some traces that are not complete, and whether each shows that its work has failed."""
        return sorted((trace, trace in self.failed) for trace in traces if trace and trace not in self.good)


def look_for(  # noqa: PLR0913  # each is one thing that a caller wants different
    oap: Oap,
    variant: Variant,
    traces: Iterable[str],
    *,
    expected: int,
    seconds: float,
    each: Callable[[Shown], None] = lambda _shown: None,
) -> Shown:
    """Read traces until so many are complete, or for so many seconds; `each` is called after each look at all.

    Raises:
        OapError: OAP does not answer.
    """
    open_traces, shown = {trace for trace in traces if trace}, Shown()
    deadline = time.monotonic() + seconds
    while True:
        for trace in list(open_traces):
            if _take(trace, oap.trace(trace), variant, shown):
                open_traces.discard(trace)
                shown.good.add(trace)
        each(shown)
        if shown.complete >= expected or time.monotonic() > deadline:
            return shown
        time.sleep(PAUSE_SECONDS)


def _take(trace: str, spans: list[Span], variant: Variant, shown: Shown) -> bool:
    """Note what a trace shows of its work; say whether it is complete."""
    complete = False
    for span in spans:
        if span.name != variant.span:
            continue
        work = span.tags.get("task.id", "")
        if span.error or span.tags.get("task.outcome") in {"crashed", "cancelled", "failed"}:
            shown.broken.add(work)
            shown.failed.add(trace)
        elif span.tags.get("task.outcome") != "retried":
            complete = True
            shown.ended.add(work)
    shown.complete += complete
    return complete
