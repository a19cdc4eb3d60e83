"""What the timeline is told, by an OAP and a service that the test makes up."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from oap_query import OapAwayError, Segment, Started
from tracing_console.data import CRASHED, FAILED, RECOVERED, Feed, RunningTask, ServiceError
from tracing_console.data import feed as feed_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class Reports:
    """What SkyWalking knows of running tasks."""

    def __init__(self) -> None:
        self.tasks: list[RunningTask] = []

    async def refresh(self, _has_segment: object) -> None:
        await asyncio.sleep(0)

    def all(self) -> list[RunningTask]:
        return self.tasks

    def add(self, name: str, ago: float, *, segment: str, lost: bool = False, service: str = "demo") -> None:
        start = int((time.time() - ago) * 1000)
        task = Started("t", segment, f"id-{segment}", name, service, "i", start, start)
        self.tasks.append(RunningTask(task, lost))


class World:
    """Segments that OAP has, tasks that the service runs; and how many rows OAP had to give."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.failed: dict[str, str] = {}
        self.running: list[dict[str, Any]] | None = None
        self.given = 0
        self.away = False
        self.reports = Reports()

    def add(self, name: str, ago: float, seconds: float, *, error: bool = False, trace: str = "t") -> Segment:
        start = int((time.time() - ago) * 1000)
        made = Segment(
            trace, f"s{len(self.segments)}", name, start, int(seconds * 1000), error, request=name.startswith("HTTP")
        )
        self.segments.append(made)
        return made

    def find(
        self,
        _oap: object,
        start: datetime,
        end: datetime | None = None,
        *,
        service: str,
        least: int = 0,
        tag: object = None,
    ) -> Iterator[list[Segment]]:
        assert service == "demo"
        if self.away:
            raise OapAwayError
        last = end.timestamp() * 1000 if end else float("inf")
        if tag is not None:
            yield [s for s in self.segments if self.failed.get(s.segment_id) == "crashed"]
            return
        page = [s for s in self.segments if start.timestamp() * 1000 <= s.start <= last and s.duration >= least]
        self.given += len(page)
        yield page

    async def tasks(self, _state: str) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        if self.running is None:
            raise ServiceError
        return {"tasks": self.running, "counts": {}, "running": len(self.running)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(feed_module, "segments", made.find)
    monkeypatch.setattr(feed_module, "failed", lambda _oap, _ids: made.failed)
    monkeypatch.setattr(feed_module, "REFRESH_SECONDS", 0)
    return made


@pytest.fixture
def feed(world: World) -> Feed:
    return Feed(None, world, ["demo"], world.reports)  # type: ignore[arg-type]


def names(data: dict[str, Any]) -> list[str]:
    return [data["names"][name][0] for name in data["name"]]


async def test_a_page_gets_what_is_new_to_it_and_no_more(world: World, feed: Feed) -> None:
    world.add("HTTP GET /test", 20, 0.002)
    await feed.refresh()
    first = feed.data("", 0)
    assert names(first) == ["HTTP GET /test"]
    world.add("work", 20, 19)
    await feed.refresh()
    assert names(feed.data(first["epoch"], first["after"])) == ["work"]
    assert names(feed.data("of another console", first["after"])) == ["HTTP GET /test", "work"]


@pytest.mark.parametrize("late", [1, 9])
@pytest.mark.parametrize("seconds", [1, 13, 30, 59, 300])
async def test_a_task_is_found_when_it_ends_however_long_it_ran(
    world: World, feed: Feed, seconds: float, late: float
) -> None:
    await feed.refresh()
    world.add("work", seconds + late, seconds)
    await feed.refresh()
    assert names(feed.data("", 0)) == ["work"]


async def test_what_ended_long_ago_is_not_asked_for_again(world: World, feed: Feed) -> None:
    for ago in range(30, 250):
        world.add("work", ago, 5)
    for _ in range(5):
        await feed.refresh()
    assert len(feed.data("", 0)["name"]) == 220
    world.given = 0
    await feed.refresh()
    await feed.refresh()
    assert world.given == 0


async def test_the_time_before_the_first_look_follows_with_the_next_ones(world: World, feed: Feed) -> None:
    for minute in range(15):
        world.add("work", minute * 60 + 30, 1)
    await feed.refresh()
    assert len(feed.data("", 0)["name"]) == 1
    assert feed.data("", 0)["more"]
    world.away = True
    with pytest.raises(OapAwayError):
        await feed.refresh()
    world.away = False
    for _ in range(4):
        await feed.refresh()
    assert len(feed.data("", 0)["name"]) == 15
    assert not feed.data("", 0)["more"]


async def test_a_task_that_succeeded_after_a_retry_is_not_called_failed(world: World, feed: Feed) -> None:
    world.add("retried", 5, 1, error=True)
    world.failed[world.add("broken", 5, 1, error=True).segment_id] = "failed"
    world.add("fine", 5, 1)
    await feed.refresh()
    data = feed.data("", 0)
    assert dict(zip(names(data), data["flags"], strict=True)) == {"retried": RECOVERED, "broken": FAILED, "fine": 0}


async def test_a_running_task_is_open_until_its_segment_arrives(world: World, feed: Feed) -> None:
    accepted = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 8))
    world.running = [{"id": "1", "name": "work", "trace_id": "t", "accepted_at": accepted, "queue_delay_ms": 5}]
    await feed.refresh()
    data = feed.data("", 0)
    ((start, name, _trace, _key),) = data["open"]
    assert data["names"][name] == ["work", "demo", False]
    assert 6000 < time.time() * 1000 - start < 10_000
    assert data["running"] == 1
    world.running = []
    await feed.refresh()
    assert len(feed.data("", 0)["open"]) == 1  # it has ended, but would vanish for some seconds
    world.add("work", 8, 7)
    await feed.refresh()
    assert feed.data("", 0)["open"] == []


async def test_a_task_that_only_skywalking_knows_is_open_until_its_segment_arrives(world: World, feed: Feed) -> None:
    world.reports.add("resize", 30, segment="s0")
    world.reports.add("resize", 20, segment="other")  # of the same trace and name
    world.reports.add("gone", 20, segment="lost", lost=True)
    world.reports.add("foreign", 20, segment="foreign", service="somebody else's")
    await feed.refresh()
    data = feed.data("", 0)
    assert [data["names"][name][0] for _, name, _, _ in data["open"]] == ["resize", "resize"]
    assert len({key for _, _, _, key in data["open"]}) == 2
    assert data["running"] == 2  # without the service's word
    world.add("resize", 30, 28)  # its segment is s0
    await feed.refresh()
    assert len(feed.data("", 0)["open"]) == 1


async def test_a_task_that_both_know_is_drawn_once(world: World, feed: Feed) -> None:
    world.reports.add("work", 8, segment="a")
    accepted = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 8))
    world.running = [{"id": "id-a", "name": "work", "trace_id": "t", "accepted_at": accepted, "queue_delay_ms": 0}]
    await feed.refresh()
    assert len(feed.data("", 0)["open"]) == 1


async def test_a_crashed_task_is_found_though_its_segment_arrives_late(world: World, feed: Feed) -> None:
    await feed.refresh()
    world.failed[world.add("killed", 400, 3, error=True).segment_id] = "crashed"
    feed._crashed_read = 0  # not long ago
    await feed.refresh()
    data = feed.data("", 0)
    assert dict(zip(names(data), data["flags"], strict=True)) == {"killed": CRASHED}


async def test_an_absent_service_takes_nothing_but_what_runs(world: World, feed: Feed) -> None:
    world.add("work", 5, 1)
    await feed.refresh()
    assert feed.data("", 0)["running"] is None
    assert names(feed.data("", 0)) == ["work"]


async def test_of_too_many_segments_the_newest_are_kept(
    world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_SEGMENTS", 10)
    for ago in range(40, 20, -1):
        world.add(f"work{ago}", ago, 1, trace=str(ago))
    await feed.refresh()
    data = feed.data("", 0)
    assert data["limited"]
    assert names(data) == [f"work{ago}" for ago in range(30, 20, -1)]
    assert feed.trace_id(data["trace"][0]) == "30"
