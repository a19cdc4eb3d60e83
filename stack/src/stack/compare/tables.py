"""What was measured, as tables: Markdown for a page, and the same lines for the terminal."""

from __future__ import annotations

import math
from dataclasses import fields
from statistics import median
from typing import TYPE_CHECKING

from tracing_claims.variants import FAULTS

from stack.compare.measure import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack.compare.faults import Outcome
    from stack.compare.measure import Found

COMPARED = (
    "",
    "answer p50",
    "answer p99",
    "queue delay p50",
    "queue delay p99",
    "at once",
    "1 s tasks a second",
    "0 s tasks a second",
    "CPU per task",
    "memory per waiting task",
    "processes",
    "memory",
    "start",
    "traces complete",
)
CHOSEN = (
    "",
    "at once",
    "1 s tasks a second",
    "queue delay p50",
    "CPU per task",
    "memory per waiting task",
    "memory",
    "start",
)
CRASHED = (
    "",
    "accepted",
    "refused",
    "done",
    "done twice",
    "dead letters",
    "**lost**",
    "lost, and failed in SkyWalking",
    "traces without an end",
)

NOTHING = "not asked"

Rows = list[tuple[str, ...]]


def middle(rounds: Sequence[Pace]) -> Pace:
    """Return the medians of several rounds."""
    return Pace(*(median(getattr(one, each.name) for one in rounds) for each in fields(Pace)))


def compared(found: Mapping[str, Found], titles: Mapping[str, str]) -> Rows:
    """Write the comparison: a row for each variant."""
    return [
        (
            titles[name],
            _ms(pace.p50_ms),
            _ms(pace.p99_ms),
            _ms(pace.delay_p50_ms),
            _ms(pace.delay_p99_ms),
            f"> {cost.offered:,}" if cost.at_once >= cost.offered else f"{cost.at_once:,}",
            f"{one.throughput_1s:,.1f}",
            f"{pace.throughput_0s:,.0f}",
            _ms(pace.cpu_ms),
            f"{cost.waiting_kb:,.0f} KB",
            f"{cost.processes}",
            f"{cost.memory_mb:,.0f} MB",
            f"{cost.start_seconds:.1f} s",
            NOTHING if math.isnan(pace.complete) else f"{pace.complete:.0%}",
        )
        for name, one in found.items()
        for pace, cost in [(one.pace, one.cost)]
    ]


def chosen(found: Mapping[str, Found], titles: Mapping[str, str]) -> Rows:
    """Write what counts when one chooses: a row for each variant, a few columns of `compared`."""
    wanted = [COMPARED.index(title) for title in CHOSEN]
    return [tuple(row[place] for place in wanted) for row in compared(found, titles)]


def crashed(outcomes: Sequence[Outcome], titles: Mapping[str, str]) -> dict[str, Rows]:
    """Write what the faults did: for each a row for each variant."""
    tables: dict[str, Rows] = {}
    for one in outcomes:
        row = (
            titles[one.variant],
            *map(str, (one.accepted, one.refused, one.done, one.done_twice, one.dead)),
            f"**{one.lost}**" if one.lost else "0",
            NOTHING if one.shown is None else f"{one.shown} of {one.lost}",
            NOTHING if one.unfinished is None else str(one.unfinished),
        )
        tables.setdefault(FAULTS[one.fault], []).append(row)
    return tables


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"  # noqa: PLR2004


def markdown(head: Sequence[str], rows: Rows) -> str:
    """Write a table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
