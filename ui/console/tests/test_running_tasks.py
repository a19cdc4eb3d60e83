"""Which tasks are said to run, from the reports of an OAP that the test makes up."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from oap_query import OapAwayError, OapError, Started
from tracing_console.data import RunningTasks
from tracing_console.data import running as module

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime


def report(name: str, ago: float, *, instance: str = "alive", alive_ago: float = 0, uuid: str = "") -> Started:
    now = time.time() * 1000
    return Started(
        "t", f"s-{name}", f"id-{name}", name, "demo", instance, int(now - ago * 1000), int(now - alive_ago * 1000), uuid
    )


class World:
    """What OAP has: start reports, events, spans and instances; and how often it was asked."""

    def __init__(self) -> None:
        self.lines: list[Started] = []
        self.events: list[Started] = []
        self.arrived: set[str] = set()
        self.error: OapError | None = None
        self.read = 0

    def started(self, _oap: object, _since: datetime) -> Iterator[list[Started]]:
        if self.error is not None:
            raise self.error
        self.read += 1
        yield self.lines

    def long_tasks(self, _oap: object, _since: datetime) -> Iterator[list[Started]]:
        for event in self.events:  # a page for each
            yield [event]

    def refreshed(self, _oap: object, tasks: Iterable[Started]) -> list[Started]:
        by_id = {event.task_id: event for event in self.events}
        return [by_id.get(task.task_id, task) for task in tasks]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(module, "started", made.started)
    monkeypatch.setattr(module, "long_tasks", made.long_tasks)
    monkeypatch.setattr(module, "refreshed", made.refreshed)
    monkeypatch.setattr(module, "arrived", lambda _oap, tasks: {task.segment_id for task in tasks} & made.arrived)
    monkeypatch.setattr(module, "instances", lambda _oap, _service, _since: ["alive"])
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(module, "REST", 0)
    return made


@pytest.fixture
def tasks(world: World) -> RunningTasks:
    return RunningTasks(None)  # type: ignore[arg-type]


def nothing(_segment_id: str, _name: str) -> bool:
    return False


def names(tasks: RunningTasks, *, lost: bool = False) -> list[str]:
    return [item.task.name for item in tasks.all() if item.lost == lost]


async def test_tasks_run_from_their_report_until_their_span_arrives(world: World, tasks: RunningTasks) -> None:
    world.lines = [report("young", 5), report("old", 50)]
    await tasks.refresh(nothing)
    assert names(tasks) == ["old", "young"]
    world.arrived = {"s-old"}
    await tasks.refresh(nothing)
    assert names(tasks) == ["young"]
    await tasks.refresh(lambda segment_id, name: (segment_id, name) == ("s-young", "young"))
    assert names(tasks) == []
    await tasks.refresh(nothing)  # their reports are read again, and say nothing new
    assert names(tasks) == []


async def test_what_was_reported_earlier_is_looked_up_before_it_is_said_to_run(
    world: World, tasks: RunningTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHECKED", 2)
    world.lines = [report(f"{number}", 100 + number) for number in range(5)]
    world.arrived = {"s-0", "s-2", "s-3"}
    seen = []
    for _ in range(3):
        await tasks.refresh(nothing)
        seen.append((names(tasks), tasks.unknown))
    assert seen == [(["1"], 3), (["1"], 1), (["4", "1"], 0)]
    monkeypatch.setattr(module, "MAX_CHECKED", 0)
    world.lines = [report("new", 3)]
    await tasks.refresh(nothing)
    assert names(tasks) == ["4", "1", "new"]  # reported a moment ago


async def test_a_task_of_hours_is_known_by_its_event(world: World, tasks: RunningTasks) -> None:
    event = report("nightly", 7200, uuid="u")
    world.events = [replace(report("done", 300, uuid="v"), ended=True), event]
    await tasks.refresh(nothing)
    assert names(tasks) == ["nightly"]
    world.events = [replace(event, ended=True)]
    await tasks.refresh(nothing)
    assert names(tasks) == []


async def test_a_task_whose_process_is_gone_is_lost_and_not_running(world: World, tasks: RunningTasks) -> None:
    world.lines = [
        report("killed", 200, instance="gone", alive_ago=190),
        report("of a new process", 5, instance="unknown to OAP yet", alive_ago=3),
        report("fine", 200, alive_ago=190),  # no event of its own, but its process is alive
    ]
    world.events = [report("silent", 300, alive_ago=100, uuid="u"), report("heard of", 300, alive_ago=20, uuid="v")]
    await tasks.refresh(nothing)
    assert sorted(names(tasks)) == ["fine", "heard of", "of a new process"]
    assert sorted(names(tasks, lost=True)) == ["killed", "silent"]


async def test_an_oap_that_is_away_is_said_and_one_that_refuses_takes_only_its_part(
    world: World, tasks: RunningTasks, caplog: pytest.LogCaptureFixture
) -> None:
    world.error = OapAwayError("away")
    with pytest.raises(OapAwayError):
        await tasks.refresh(nothing)
    world.error = OapError(f"no such tag {time.time()}")
    world.events = [report("long", 100, uuid="u")]
    await tasks.refresh(nothing)
    await tasks.refresh(nothing)
    assert names(tasks) == ["long"]
    assert [line.levelname for line in caplog.records] == ["WARNING"]


async def test_many_open_pages_ask_once(world: World, tasks: RunningTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 60)
    for _ in range(5):
        await tasks.refresh(nothing)
    assert world.read == 1


def states(tasks: RunningTasks, *items: Started) -> list[Any]:
    return [(item.task.name, item.lost) for item in tasks.states(items)]


def test_a_traces_tasks_are_asked_for_by_their_events(world: World, tasks: RunningTasks) -> None:
    world.events = [replace(report("done", 100, uuid="u"), ended=True)]
    found = states(tasks, report("done", 100), report("open", 100), report("killed", 200, instance="x", alive_ago=150))
    assert found == [("open", False), ("killed", True)]
