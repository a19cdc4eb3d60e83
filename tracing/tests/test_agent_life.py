"""The life of tracing in one process: its switch, start, words and end. With a stand-in for the reporter."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from skywalking import config
from skywalking.agent import agent
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _agent, _faults, _fork, _meters
from skywalking_background._grpc import GrpcTransport
from skywalking_background._http import HttpTransport
from skywalking_background._internals import bootstrap
from skywalking_background._kafka import KafkaTransport
from skywalking_background._reporter import Counts, Reporter

ENABLED = "SKYWALKING_BACKGROUND_ENABLED"


SENDS = ("send_segments", "send_logs", "send_events", "send_meters")


class Stand:
    """A reporter that writes down what it is asked for."""

    def __init__(self, *, reached: bool = False) -> None:
        self.asked: list[Any] = []
        self.reached = reached
        self.delivers = False
        self.transport = SimpleNamespace(close=lambda: self.asked.append("close"))

    def begin(self) -> None:
        self.asked.append("begin")

    def put_log(self, log: Any) -> None:
        self.asked.append(log)

    def flush(self, timeout: float) -> bool:
        self.asked.append(timeout)
        return False

    def flush_at_exit(self, *seconds: float) -> None:
        self.asked.append(seconds)

    def counts(self) -> dict[str, Counts]:
        return {"segments": Counts(1, 2, 3)}


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which nothing was started."""
    monkeypatch.setattr(_agent, "_reporter", None)
    monkeypatch.setattr(_agent, "_off", False)
    monkeypatch.setattr(_agent, "_lock", threading.Lock())
    monkeypatch.delenv(ENABLED, raising=False)


@pytest.fixture
def reporter(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    monkeypatch.setattr(_agent, "_reporter", made)
    return made


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a start does, in its order, without doing it."""
    done: list[Any] = []

    def noting(name: str) -> Any:
        return lambda *what, **how: done.append((name, *what, *how.values()))

    monkeypatch.setattr(_agent, "check", noting("check"))
    monkeypatch.setattr(bootstrap, "install", noting("install"))
    monkeypatch.setattr(_agent._segments, "when_something_waits", noting("waits"))
    monkeypatch.setattr(_agent, "in_each_child", noting("child"))
    monkeypatch.setattr(atexit, "register", noting("exit"))

    def use_reporter(*, reached: bool) -> None:
        done.append(("reporter", reached))
        monkeypatch.setattr(_agent, "_reporter", Stand())

    monkeypatch.setattr(_agent, "_use_reporter", use_reporter)
    return done


@pytest.mark.parametrize("word", ["false", "0", "no", "off", " OFF ", "False"])
def test_a_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch, steps: list[Any], word: str) -> None:
    monkeypatch.setenv(ENABLED, word)
    assert not _agent.switch(on=None)
    _agent.start()
    assert steps == []


@pytest.mark.parametrize("word", ["true", "1", "", "yes", "of"])
def test_no_other_word_does(monkeypatch: pytest.MonkeyPatch, steps: list[Any], word: str) -> None:
    monkeypatch.setenv(ENABLED, word)
    assert _agent.switch(on=None)
    _agent.start()
    assert steps


def test_an_argument_counts_more_than_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _agent.switch(on=False)
    assert _agent._off
    monkeypatch.setenv(ENABLED, "false")
    assert _agent.switch(on=True)
    assert _agent._off  # that it was off once is enough to say nothing about it


def test_a_start_happens_once_and_in_an_order(steps: list[Any]) -> None:
    _agent.start()
    _agent.start()
    assert steps == [
        ("check",),
        ("install", _agent._segments.Context),
        ("reporter", False),
        ("waits", _agent.begin_reporting),
        ("child", _agent._begin_anew),
        ("exit", _agent._flush_at_exit),
    ]


def test_an_agent_that_has_changed_is_said_once_and_nothing_is_traced(
    steps: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def changed() -> None:
        raise RuntimeError("agent 2.0 lacks a thing")

    monkeypatch.setattr(_agent, "check", changed)
    _agent.start()
    assert steps == []
    assert not _agent.tracing()
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("ERROR", "nothing is traced: agent 2.0 lacks a thing")
    ]


def test_a_start_in_a_pools_process_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a setting")

    monkeypatch.setattr(_agent, "start", fail)
    _agent.start_in_child()
    assert _faults.faults() == {"starting in a process of a pool": 1}
    _faults._seen.clear()


def test_without_a_start_one_line_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    assert not _agent.tracing()
    assert not _agent.tracing()
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", "nothing is traced: call instrument(app), or start() in a process without an app")
    ]


def test_switched_off_it_says_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(ENABLED, "off")
    assert not _agent.tracing()
    monkeypatch.delenv(ENABLED)
    assert not _agent.tracing()
    assert caplog.records == []


def test_after_a_start_it_traces(reporter: Stand) -> None:
    assert _agent.tracing()


@pytest.mark.parametrize(
    ("protocol", "kind"), [("grpc", GrpcTransport), ("http", HttpTransport), ("kafka", KafkaTransport)]
)
def test_each_protocol_has_its_transport(monkeypatch: pytest.MonkeyPatch, protocol: str, kind: Any) -> None:
    monkeypatch.setattr(config, "agent_protocol", protocol)
    monkeypatch.setattr(config, "agent_collector_backend_services", "oap:1")
    assert type(_agent._transport()) is kind
    made: Any = _agent._transport()
    if protocol == "grpc":
        assert made._channel._address == "oap:1"
    if protocol == "http":
        assert made._address == "oap:1"


def test_all_that_the_agent_finishes_goes_to_our_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("archive_segment", "archive_log", "is_segment_queue_full"):
        monkeypatch.setattr(agent, name, None, raising=False)
    made: dict[str, Any] = {}

    class Noting(Reporter):
        def __init__(self, transport: Any, **options: Any) -> None:
            made.update(options, transport=transport)
            super().__init__(transport, **options)

    monkeypatch.setattr(_agent, "Reporter", Noting)
    monkeypatch.setattr(_agent, "_transport", lambda: SimpleNamespace(**dict.fromkeys(SENDS)))
    _agent._use_reporter(reached=True)
    assert _agent._reporter is not None
    assert agent.archive_segment == _agent._reporter.segments.put
    assert agent.is_segment_queue_full() is False
    assert made.pop("transport").send_segments is None
    assert made == {
        "on_begin": _agent._on_begin,
        "on_first_round": _agent._begin_threads,
        "on_round": _agent._on_round,
        "reached": True,
    }
    put: list[Any] = []
    monkeypatch.setattr(_agent._reporter, "put_log", put.append)
    agent.archive_log("line")
    assert put == ["line"]


@pytest.mark.parametrize(
    ("protocol", "active", "events", "meters"),
    [
        ("grpc", True, True, True),
        ("grpc", False, True, False),
        ("http", True, True, False),
        ("kafka", True, False, True),
    ],
)
def test_what_a_transport_carries_is_observed(
    monkeypatch: pytest.MonkeyPatch, protocol: str, active: bool, events: bool, meters: bool
) -> None:
    for name in ("archive_segment", "archive_log", "is_segment_queue_full"):
        monkeypatch.setattr(agent, name, None, raising=False)
    for name in ("_observers", "_meter_report", "_send_events"):
        monkeypatch.setattr(_agent, name, None)
    settings = {"protocol": protocol, "meter_reporter_active": active, "meter_reporter_period": 7}
    for name, value in settings.items():
        monkeypatch.setattr(config, f"agent_{name}", value)
    watched: list[Any] = []
    monkeypatch.setattr(_agent._running, "watch_by", lambda *what: watched.append(what))
    monkeypatch.setattr(_meters, "_WANTED", True)
    monkeypatch.setattr(_meters, "enabled", not meters)
    _agent._use_reporter(reached=False)
    reporter: Any = _agent._reporter
    observers: Any = _agent._observers
    report: Any = _agent._meter_report
    assert _agent._send_events == (reporter.transport.send_events if events else None)
    assert (observers.events and observers.events._send) == _agent._send_events
    assert reporter.before_segments == observers.before_delivery
    assert watched == [(observers.watches, _agent.begin_reporting)]
    assert (report is not None, _meters.enabled) == (meters, meters)
    if meters:
        assert (report._send, report._period) == (reporter.transport.send_meters, 7)
        assert report._segments() == reporter.segments.counts


class Timer:
    """In place of `threading.Timer`."""

    made: list[Timer]

    def __init__(self, *what: Any) -> None:
        self.what, self.name, self.daemon, self.started = what, "", False, False
        self.made.append(self)

    def start(self) -> None:
        self.started = True


def test_who_finds_what_another_process_has_left_reports_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    Timer.made = []
    monkeypatch.setattr(threading, "Timer", Timer)
    finds: list[bool] = [True, False]
    monkeypatch.setattr(_agent, "_observers", SimpleNamespace(finds_lost=finds.pop))
    _agent._close_what_others_left()
    assert not Timer.made
    _agent._close_what_others_left()
    (timer,) = Timer.made
    assert timer.what == (1.0, _agent.begin_reporting)
    assert (timer.name, timer.daemon, timer.started) == ("skywalking-background-rescue", True, True)
    _agent._close_what_others_left()  # there is no further answer to give
    assert _faults.faults() == {"looking for what other processes have left": 1}
    _faults._seen.clear()


def test_an_app_that_begins_and_ends_says_so_and_delivers(reporter: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(_agent._life_events, "event", lambda *what: said.append(what))
    _agent.app_starts()
    assert reporter.asked == ["begin"]
    _agent.app_ends()
    assert reporter.asked == ["begin", 5.0]
    pid = os.getpid()
    assert said == [("Start", f"process {pid} serves"), ("Shutdown", f"process {pid} serves no more")]


@pytest.mark.parametrize("delivers", [True, False])
def test_events_and_meters_are_delivered_last_where_oap_takes_something(
    reporter: Stand, monkeypatch: pytest.MonkeyPatch, delivers: bool
) -> None:
    asked: list[Any] = []
    reporter.delivers = delivers
    monkeypatch.setattr(_agent, "_send_events", "send")
    monkeypatch.setattr(_agent._life_events, "step", asked.append)
    monkeypatch.setattr(_agent, "_meter_report", SimpleNamespace(send_rest=lambda: asked.append("meters")))
    monkeypatch.setattr(_agent, "_observers", SimpleNamespace(close=lambda: asked.append("close")))
    _agent.flush()
    _agent._flush_child()
    _agent._flush_at_exit()
    rest = ["send", "meters"] * delivers
    assert asked == [*rest, *rest, "close", *rest, "close"]


def test_a_log_line_that_is_the_first_thing_after_an_unseen_fork_is_the_childs(
    reporter: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "agent_instance_name", "child")
    tagged: list[LogData] = []
    monkeypatch.setattr(_agent, "tag_with_task", tagged.append)
    for noticed, instance in ((False, "main"), (True, "child")):
        monkeypatch.setattr(_agent, "notice_fork", lambda noticed=noticed: noticed)
        _agent._put_log(LogData(serviceInstance="main"))
        assert reporter.asked == [tagged.pop()]
        assert reporter.asked.pop().serviceInstance == instance


def test_reporting_begins_when_the_app_starts_and_never_raises(
    reporter: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _agent.begin_reporting()
    assert reporter.asked == ["begin"]

    def fail() -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(reporter, "begin", fail)
    _agent.begin_reporting()
    assert [one.getMessage() for one in caplog.records] == [f"process {os.getpid()} can't begin to report yet"]
    monkeypatch.setattr(_agent, "_reporter", None)
    _agent.begin_reporting()
    assert len(caplog.records) == 1


def test_each_round_sends_what_waits_and_lets_everybody_look(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(_agent._segments, "send_what_waits", lambda: asked.append("segments"))
    monkeypatch.setattr(_agent._life_events, "step", asked.append)
    monkeypatch.setattr(_agent, "_send_events", "send")
    for name in ("_observers", "_meter_report"):
        monkeypatch.setattr(_agent, name, None)
    _agent._on_round()
    monkeypatch.setattr(_agent, "_observers", SimpleNamespace(look=lambda: asked.append("look")))
    monkeypatch.setattr(_agent, "_meter_report", SimpleNamespace(step=lambda: asked.append("meters")))
    _agent._on_round()
    assert asked == ["segments", "send", "segments", "look", "send", "meters"]


def test_a_process_that_reports_delivers_at_its_end(monkeypatch: pytest.MonkeyPatch, reporter: Stand) -> None:
    given: list[Any] = []
    monkeypatch.setattr(_agent, "deliver_at_the_end", given.append)
    _agent._on_begin()
    given[0]()
    _agent._flush_at_exit()
    assert reporter.asked == [(5.0, 5.0), ()]


@pytest.mark.parametrize(
    ("text", "ends", "said"),
    [("odd", False, True), ("can't create new thread at interpreter shutdown", False, False), ("odd", True, False)],
)
def test_threads_that_cannot_begin_are_said_unless_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, ends: bool, said: bool
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(bootstrap, "begin_threads", lambda: begun.append(1))
    _agent._begin_threads()
    assert begun == [1]

    def fail() -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(bootstrap, "begin_threads", fail)
    monkeypatch.setattr(sys, "is_finalizing", lambda: ends)
    _agent._begin_threads()
    line = f"process {os.getpid()} reports its segments, but neither heartbeat nor meters"
    assert [one.getMessage() for one in caplog.records] == [line] * said
    assert all(one.exc_info for one in caplog.records)


@pytest.mark.parametrize("reached", [True, False])
def test_a_child_begins_with_a_reporter_of_its_own(monkeypatch: pytest.MonkeyPatch, reached: bool) -> None:
    parent = Stand(reached=reached)
    order = parent.asked
    monkeypatch.setattr(_agent, "_reporter", parent)
    monkeypatch.setattr(_agent, "_use_reporter", lambda *, reached: order.append(("reporter", reached)))
    monkeypatch.setattr(_agent._segments, "forget_all", lambda: order.append("spans"))
    monkeypatch.setattr(bootstrap, "forget_parent", lambda: order.append("threads"))
    before = _agent._lock
    with before:  # as a thread of the parent may have it
        _agent._begin_anew()
        assert not _agent._lock.locked()
    assert order == [("reporter", reached), "spans", "close", "threads"]


def test_a_child_of_a_process_without_tracing_stays_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "_use_reporter", None)
    _agent._begin_anew()
    assert _agent._reporter is None


def test_before_a_start_there_is_nothing_to_deliver() -> None:
    assert _agent.flush() is True
    assert _agent.counts() == {}
    _agent._flush_child()
    _agent._flush_at_exit()
    _agent._put_log(LogData())


def test_afterwards_the_reporter_answers(reporter: Stand) -> None:
    assert _agent.flush() is False
    assert _agent.flush(1.5) is False
    assert reporter.asked == [5.0, 1.5]
    assert _agent.counts() == {"segments": Counts(1, 2, 3)}


def test_forks_are_looked_for_in_this_process() -> None:
    assert not _fork.notice_fork()
