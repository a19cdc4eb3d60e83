"""What happens to a process as a whole, as events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from skywalking.protocol.event.Event_pb2 import Event, Type
from skywalking_background import _agent, _life_events, event, faults, instrument
from skywalking_background._failures import RefusedError, UnreachableError
from skywalking_background._faults import _seen
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _life_events.forget_all()
    monkeypatch.setattr(_life_events, "_try_again", 0.0)
    yield
    _life_events.forget_all()


def sent() -> list[Any]:
    found: list[Any] = []
    _life_events.step(found.extend)
    return [Event.FromString(one) for one in found]


def test_an_app_tells_of_its_start_and_its_end_and_of_what_it_says_itself(
    segments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_agent, "_reporter", None)
    with TestClient(instrument(FastAPI())):
        event("Deployed", "version 2", seconds=1.5)
        event("Drain", "1 was interrupted", failed=True)
    start, deployed, drain, shutdown = sent()
    assert [one.name for one in (start, deployed, drain, shutdown)] == ["Start", "Deployed", "Drain", "Shutdown"]
    assert [one.endTime - one.startTime for one in (start, deployed, drain)] == [0, 1_500, 0]
    assert abs(deployed.endTime / 1000 - time.time()) < 60
    assert deployed.layer == "GENERAL"
    assert (deployed.type, drain.type) == (Type.Normal, Type.Error)
    assert start.source.service == _life_events.config.agent_name
    assert start.source.serviceInstance == _life_events.config.agent_instance_name
    assert len({one.uuid for one in (start, deployed, drain, shutdown)}) == 4
    assert not sent()


def test_they_wait_for_oap_in_their_order_and_one_that_is_refused_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_batch: list[bytes]) -> None:
        raise UnreachableError("away")

    def refuse(_batch: list[bytes]) -> None:
        raise RefusedError("no")

    event("A", "1")
    event("B", "2")
    _life_events.step(away)
    assert not sent()  # not asked again at once
    monkeypatch.setattr(_life_events, "_try_again", time.monotonic() - 1)
    assert [one.name for one in sent()] == ["A", "B"]
    event("C", "3")
    _life_events.step(refuse)
    assert not sent()
    assert [record.message for record in caplog.records] == [
        "OAP does not take the events of this process (no): 1 are dropped"
    ]


def test_too_many_are_dropped_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(_life_events.LIMIT + 1):
        event("E", str(number))
    assert [record.message for record in caplog.records] == ["100 events wait for OAP already, the oldest is dropped"]
    assert [one.message for one in sent()][:: _life_events.LIMIT - 1] == ["1", str(_life_events.LIMIT)]


def test_each_event_makes_sure_that_somebody_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_life_events, "_begin", bool)
    begun: list[int] = []
    _life_events.when_something_waits(lambda: begun.append(1))
    event("A", "1")
    event("B", "2")
    assert begun == [1, 1]
    assert [one.message for one in sent()] == ["1", "2"]


def test_where_oap_takes_none_they_are_not_kept() -> None:
    event("A", "1")
    _life_events.step(None)
    assert not sent()


def test_what_fails_in_making_or_sending_one_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_batch: list[bytes]) -> None:
        raise ZeroDivisionError

    event("A", "1", seconds="long")  # type: ignore[arg-type]
    event("B", "2")
    _life_events.step(fail)
    assert faults() == {"making an event": 1, "reporting events": 1}
    _seen.clear()
