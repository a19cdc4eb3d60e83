"""Under Trio, as with Hypercorn's worker for it: its tasks and its cancellation are known as those of asyncio are."""

from __future__ import annotations

from typing import Any

import trio
from skywalking_background import background_span
from skywalking_background._faults import is_order
from skywalking_background._running import outcome


def test_work_in_a_task_of_its_own_has_a_segment_of_its_own(segments: list[Any]) -> None:
    async def part(name: str) -> None:
        with background_span(name):
            await trio.lowlevel.checkpoint()

    async def family() -> None:
        with background_span("family"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(part, "one")
                nursery.start_soon(part, "other")
            with background_span("below"):
                pass

    trio.run(family)
    found = sorted([span.op for span in segment.spans] for segment in segments)
    assert found == [["below", "family"], ["one"], ["other"]]
    refs = [segment.spans[0].refs[0] for segment in segments if len(segment.spans) == 1]
    assert {ref.ref_type for ref in refs} == {"CrossThread"}


def test_what_trio_cancels_is_cancelled(segments: list[Any]) -> None:
    seen: list[BaseException] = []

    async def work() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                with background_span("work"):
                    await trio.sleep(60)
            except trio.Cancelled as error:
                seen.append(error)
                raise

    trio.run(work)
    (error,) = seen
    assert is_order(error)
    assert is_order(BaseExceptionGroup("several", [ValueError(), error]))
    (segment,) = segments
    assert outcome(segment.spans[0], error) == "cancelled"
