"""What SkyWalking shows of the comparison's work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from demo_service.variants import Variant
    from oap_query import Oap, Span

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


def look_for(oap: Oap, variant: Variant, traces: Iterable[str], *, expected: int, seconds: float) -> Shown:
    """Read traces until so many are complete, or for so many seconds.

    Raises:
        OapError: OAP does not answer.
    """
    open_traces, shown = {trace for trace in traces if trace}, Shown()
    deadline = time.monotonic() + seconds
    while True:
        for trace in list(open_traces):
            if _take(oap.trace(trace), variant, shown):
                open_traces.discard(trace)
        if shown.complete >= expected or time.monotonic() > deadline:
            return shown
        time.sleep(PAUSE_SECONDS)


def _take(spans: list[Span], variant: Variant, shown: Shown) -> bool:
    """Note what a trace shows of its work; say whether it is complete."""
    complete = False
    for span in spans:
        if span.name != variant.span:
            continue
        work = span.tags.get("task.id", "")
        if span.error or span.tags.get("task.outcome") in {"crashed", "cancelled", "failed"}:
            shown.broken.add(work)
        elif span.tags.get("task.outcome") != "retried":
            complete = True
            shown.ended.add(work)
    shown.complete += complete
    return complete
