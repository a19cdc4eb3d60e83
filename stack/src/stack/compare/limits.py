"""How much work of 1 s a variant ends in a second: more is sent, step by step, until more is no longer done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from stack.load import send

if TYPE_CHECKING:
    from tracing_claims.variants import Variant

    from stack.compare.rig import Rig

WORK_SECONDS: Final = 1.0
FIRST_STEP: Final = 20
"""Pieces of work that the first step sends."""
GROWTH: Final = 5
"""How many times as many the next one sends at the most."""
STEP_SECONDS: Final = 8.0
"""About how long the last step takes: of what a variant was seen to do, so much is sent."""
ENOUGH: Final = 0.75
"""A step that takes this share of the time is the last one: its begin and its end count for little by then."""
MOST_STEPS: Final = 6
MOST_CLIENTS: Final = 100
MOST_CONNECTIONS: Final = 1_000
"""Where the client waits for the work, each has a connection of its own."""
QUIET_SECONDS: Final = 30.0


def throughput(rig: Rig, variant: Variant) -> float:
    """Return how many pieces of work of 1 s end in a second, when there are always more of them that wait.

    Raises:
        RigError: none ends.
    """
    count, rate = FIRST_STEP, 0.0
    for _ in range(MOST_STEPS):
        seconds = _step(rig, variant, count)
        rate = count / seconds
        if seconds >= ENOUGH * STEP_SECONDS:
            break
        count = next_count(count, rate)
    return rate


def next_count(count: int, rate: float) -> int:
    """Return how many to send after so many, of which `rate` ended in a second."""
    return max(count + 1, min(GROWTH * count, round(rate * STEP_SECONDS)))


def _step(rig: Rig, variant: Variant, count: int) -> float:
    """Send work as fast as it goes; return the seconds from the first begin to the last end."""
    rig.forget()
    at_once = MOST_CONNECTIONS if variant.name == "blocking" else MOST_CLIENTS
    asyncio.run(send(rig.url + variant.path, count, seconds=WORK_SECONDS, at_once=min(count, at_once)))
    rig.wait_until_idle(variant, QUIET_SECONDS)
    times = rig.times(variant)
    return (max(times.done.values()) - min(times.begun.values())) / 1000
