"""A queue and what becomes of its batches, without a network: `send` is a list, or raises what it is told to."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from skywalking_background import _lane
from skywalking_background._failures import RefusedError, TimedOutError, UnreachableError
from skywalking_background._lane import Counts, Lane

if TYPE_CHECKING:
    from collections.abc import Callable


class Other:
    """The other end: takes every batch but those that `judge` raises for."""

    def __init__(self) -> None:
        self.taken: list[list[bytes]] = []
        self.tried: list[list[bytes]] = []
        self.judge: Callable[[list[bytes]], None] = lambda _batch: None

    def send(self, batch: list[bytes]) -> None:
        self.tried.append(list(batch))
        self.judge(batch)
        self.taken.append(list(batch))


@pytest.fixture
def other() -> Other:
    return Other()


@pytest.fixture
def lane(other: Other) -> Lane:
    return Lane(
        "jobs",
        100,
        encode=str.encode,
        send=other.send,
        describe=lambda item: f"job {item.decode()}",
        begin=lambda: True,
    )


def put(lane: Lane, *items: str) -> None:
    for item in items:
        lane.put(item)


def refuse(*poison: bytes) -> Callable[[list[bytes]], None]:
    def judge(batch: list[bytes]) -> None:
        if set(batch) & set(poison):
            raise RefusedError("INTERNAL")

    return judge


def test_a_batch_leaves_when_it_was_taken(lane: Lane, other: Other) -> None:
    put(lane, "a", "b")
    assert lane.counts == Counts(0, 2, 0)
    assert lane.step()
    assert other.taken == [[b"a", b"b"]]
    assert lane.counts == Counts(2, 0, 0)
    assert not lane.step()


def test_a_batch_has_so_many_items(lane: Lane, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lane, "BATCH_ITEMS", 2)
    put(lane, *"abcde")
    while lane.step():
        pass
    assert other.taken == [[b"a", b"b"], [b"c", b"d"], [b"e"]]


def test_a_batch_has_so_many_bytes_and_what_is_larger_travels_alone(
    lane: Lane, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lane, "BATCH_BYTES", 4)
    put(lane, "aa", "bb", "c", "dddddd", "e", "fff", "g")
    while lane.step():
        pass
    assert other.taken == [[b"aa", b"bb"], [b"c"], [b"dddddd"], [b"e", b"fff"], [b"g"]]


def test_what_does_not_fit_is_counted_until_there_is_room(lane: Lane) -> None:
    lane.limit = 2
    put(lane, "a", "b", "c", "d")
    assert lane.counts == Counts(0, 2, 2)
    lane.step()
    put(lane, "e", "f", "g")
    assert lane.counts == Counts(2, 2, 3)


def test_what_is_under_way_takes_its_room(lane: Lane, other: Other) -> None:
    lane.limit = 2
    put(lane, "a", "b")
    other.judge = lambda _batch: put(lane, "c")
    lane.step()
    assert lane.counts == Counts(2, 0, 1)


def test_so_do_bytes(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lane, "QUEUE_BYTES", 4)
    put(lane, "aa", "b")
    assert lane.counts == Counts(0, 2, 0)
    put(lane, "c", "d")
    assert lane.counts == Counts(0, 3, 1)
    lane.step()
    put(lane, "aaaa", "b")
    assert lane.counts == Counts(3, 1, 2)


def test_what_cannot_be_encoded_is_said_once_and_counted(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    put(lane, "\udcff", "\udcff", "a")
    assert lane.counts == Counts(0, 1, 2)
    (line,) = caplog.records
    assert line.getMessage() == "one of the jobs can't be encoded and is dropped; others like it are only counted"
    assert line.exc_info is not None


def test_it_begins_with_the_first_and_only_until_it_has(other: Other) -> None:
    answers = deque([False, True, False])
    lane = Lane("jobs", 100, encode=str.encode, send=other.send, describe=str, begin=answers.popleft)
    put(lane, "a", "b", "c", "d")
    assert list(answers) == [False]
    assert lane.counts == Counts(0, 4, 0)


def test_a_beginning_that_fails_is_said_and_nothing_is_lost(other: Other, caplog: pytest.LogCaptureFixture) -> None:
    def begin() -> bool:
        if len(caplog.records) < 2:
            raise ValueError("on purpose")
        return True

    lane = Lane("jobs", 100, encode=str.encode, send=other.send, describe=str, begin=begin)
    put(lane, "a", "b", "c", "d")
    assert lane.counts == Counts(0, 4, 0)
    assert [one.getMessage() for one in caplog.records] == ["the delivery of jobs can't begin yet"] * 2
    assert all(one.exc_info for one in caplog.records)


def test_an_end_that_is_not_there_keeps_everything_in_order(lane: Lane, other: Other) -> None:
    def judge(_batch: list[bytes]) -> None:
        raise UnreachableError("away")

    other.judge = judge
    put(lane, "a", "b")
    for _ in range(3):
        with pytest.raises(UnreachableError):
            lane.step()
    put(lane, "c")
    assert lane.counts == Counts(0, 3, 0)
    other.judge = lambda _batch: None
    while lane.step():
        pass
    assert other.taken == [[b"a", b"b"], [b"c"]]
    assert not lane.stuck


def test_the_one_that_is_refused_is_found_among_others(
    lane: Lane, other: Other, caplog: pytest.LogCaptureFixture
) -> None:
    other.judge = refuse(b"d")
    put(lane, *"abcdefg")
    for _ in range(20):
        if not lane.step():
            lane.retry()
    assert [item for batch in other.taken for item in batch] == [b"a", b"b", b"c", b"e", b"f", b"g"]
    assert lane.counts == Counts(6, 0, 1)
    assert lane.settled == 7
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.getMessage() == "OAP will never take one of the jobs, it is dropped (INTERNAL): job d, 1 bytes"


def test_one_that_is_refused_alone_is_kept_until_others_were_taken(lane: Lane, other: Other) -> None:
    other.judge = refuse(b"a")
    put(lane, "a")
    assert lane.step()
    assert not lane.step()
    assert lane.stuck
    for _ in range(5):
        lane.retry()
        assert not lane.stuck
        lane.step()
    assert lane.counts == Counts(0, 1, 0)  # nothing shows that it is this one
    put(lane, "b")
    lane.step()
    assert other.taken == [[b"b"]]
    lane.step()
    assert lane.counts == Counts(1, 0, 1)
    assert not lane.stuck


def test_one_that_is_taken_after_all_is_no_loss(lane: Lane, other: Other) -> None:
    other.judge = refuse(b"a")
    put(lane, "a")
    lane.step()
    other.judge = lambda _batch: None
    lane.retry()
    lane.step()
    assert lane.counts == Counts(1, 0, 0)


def test_what_is_too_large_is_dropped_when_it_is_refused(
    lane: Lane, other: Other, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_lane, "BATCH_BYTES", 3)
    other.judge = refuse(b"aaaa", b"bbb")
    put(lane, "aaaa", "bbb")
    while lane.step():
        pass
    assert lane.counts == Counts(0, 1, 1)  # what just fits may fare better later
    assert caplog.messages == [
        "OAP will never take one of the jobs, it is dropped (INTERNAL, too large): job aaaa, 4 bytes"
    ]


def test_what_cannot_be_described_is_dropped_all_the_same(
    lane: Lane, other: Other, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_lane, "BATCH_BYTES", 0)
    other.judge = refuse(b"a")
    lane.describe = None  # type: ignore[assignment]
    put(lane, "a")
    lane.step()
    assert caplog.messages == [
        "OAP will never take one of the jobs, it is dropped (INTERNAL, too large): unreadable, 1 bytes"
    ]


def test_an_end_that_refuses_all_is_left_alone_after_twenty(lane: Lane, other: Other) -> None:
    def judge(_batch: list[bytes]) -> None:
        raise RefusedError("ill")

    other.judge = judge
    put(lane, *map(str, range(64)))
    rounds = 0
    for _ in range(3):
        try:
            while lane.step():
                rounds += 1
        except RefusedError:
            pass
    assert rounds == 3 * 19
    assert lane.counts == Counts(0, 64, 0)
    other.judge = lambda _batch: None
    lane.retry()
    while lane.step():
        pass
    assert lane.counts == Counts(64, 0, 0)
    assert sorted(int(item) for batch in other.taken for item in batch) == list(range(64))


def slow(*items: bytes) -> Callable[[list[bytes]], None]:
    def judge(batch: list[bytes]) -> None:
        if set(batch) & set(items):
            raise TimedOutError("no answer")

    return judge


def step_until_idle(lane: Lane) -> int:
    """Step on, and count the batches that got no answer."""
    timed_out = 0
    while True:
        try:
            if not lane.step():
                return timed_out
        except TimedOutError:
            timed_out += 1


def test_a_batch_without_an_answer_is_sent_again_and_then_in_halves(lane: Lane, other: Other) -> None:
    def judge(batch: list[bytes]) -> None:
        if len(batch) > 2:
            raise TimedOutError("no answer")

    other.judge = judge
    put(lane, *"abcd")
    assert step_until_idle(lane) == 2
    assert other.tried == [[*(b"a", b"b", b"c", b"d")]] * 2 + [[b"a", b"b"], [b"c", b"d"]]
    assert lane.counts == Counts(4, 0, 0)


def test_one_that_never_gets_an_answer_is_dropped_when_others_were_taken(
    lane: Lane, other: Other, caplog: pytest.LogCaptureFixture
) -> None:
    other.judge = slow(b"a")
    put(lane, "a")
    assert step_until_idle(lane) == 2
    assert lane.stuck
    lane.retry()
    assert step_until_idle(lane) == 1
    assert lane.counts == Counts(0, 1, 0)  # the end may be slow for all
    put(lane, "b")
    step_until_idle(lane)
    assert lane.counts == Counts(1, 0, 1)
    assert caplog.messages == [
        "OAP will never take one of the jobs, it is dropped (no answer to it, while others were taken): job a, 1 bytes"
    ]


def test_a_goal_is_settled_when_so_many_have_left_or_nothing_is_left(lane: Lane, other: Other) -> None:
    put(lane, "a", "b")
    goal = lane.settled + lane.counts.queued
    assert not lane.has_settled(goal)
    assert lane.has_settled(0)
    lane.step()
    assert lane.has_settled(goal)
    assert lane.has_settled(goal + 1)
    put(lane, "c")
    assert lane.has_settled(goal)
    assert not lane.has_settled(goal + 1)
    other.judge = lambda _batch: found.append(lane.has_settled(goal + 1))
    found: list[Any] = []
    lane.step()
    assert found == [False]  # it is under way
