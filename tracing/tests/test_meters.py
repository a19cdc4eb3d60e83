"""What is counted of tasks, and what of it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from skywalking.protocol.language_agent.Meter_pb2 import MeterDataCollection
from skywalking_background import (
    _loop_lag,
    _meter_report,
    _meters,
    _runtime_meters,
    _spans,
    background_span,
    faults,
    instrument,
    meters,
    untraced,
)
from skywalking_background._failures import RefusedError, UnreachableError
from skywalking_background._faults import _seen
from skywalking_background._fork import instance_name
from skywalking_background._lane import Counts
from skywalking_background._meter_report import MeterReport
from skywalking_background.messaging import consumer_span
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator

Sent = dict[tuple[str, str], Any]


@pytest.fixture(autouse=True)
def no_meters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_meters, "enabled", True)
    monkeypatch.setattr(_runtime_meters, "_runtime", None)
    _meters.begin_anew()
    _meters._queues.clear()
    _loop_lag.forget_all()
    yield
    _meters.begin_anew()
    _meters._queues.clear()
    _loop_lag.forget_all()


class Oap:
    """What a report sends, by name and task; OAP is told what to do with it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.collections: list[MeterDataCollection] = []
        self.counts = Counts(0, 0, 0)
        self.report = MeterReport(self.take, lambda: self.counts, 20)

    def take(self, encoded: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.collections.append(MeterDataCollection.FromString(encoded))

    def sent(self) -> Sent:
        self.report.send()
        found: Sent = {}
        for data in self.collections.pop().meterData:
            one = data.singleValue if data.HasField("singleValue") else data.histogram
            assert [label.name for label in one.labels] in ([], ["task"])
            task = one.labels[0].value if one.labels else ""
            value = one.value if data.HasField("singleValue") else {v.bucket: v.count for v in one.values}
            found[one.name.removeprefix("background_"), task] = value
        return found


@pytest.fixture
def oap(segments: list[Any]) -> Oap:
    return Oap()


def outcomes(sent: Sent, task: str) -> dict[str, int]:
    return {what: int(sent[f"tasks_{what}", task]) for what in _meters.COUNTED if sent[f"tasks_{what}", task]}


def run(name: str, error: BaseException | None = None) -> None:
    with contextlib.suppress(BaseException), background_span(name):
        if error is not None:
            raise error


def test_each_end_of_a_task_is_counted_under_its_name_once(oap: Oap) -> None:
    run("mail")
    run("mail")
    run("mail", ValueError("no"))
    run("mail", asyncio.CancelledError())
    with background_span("resize") as span:
        span.record_error(ValueError("handled"))
    sent = oap.sent()
    assert outcomes(sent, "mail") == {"started": 4, "succeeded": 2, "failed": 1, "cancelled": 1}
    assert outcomes(sent, "resize") == {"started": 1, "failed": 1}
    assert outcomes(oap.sent(), "mail") == {}


def test_what_only_the_runner_knows_is_counted_by_it(oap: Oap) -> None:
    meters.count("retried", "mail", 2)
    meters.count("dead", "mail")
    meters.count("crashed", "mail")
    assert outcomes(oap.sent(), "mail") == {"retried": 2, "dead": 1, "crashed": 1}


def test_a_span_within_a_task_is_no_task(oap: Oap) -> None:
    with background_span("mail"), background_span("attempt 2"):
        pass
    with untraced(), background_span("write"):
        pass
    sent = oap.sent()
    assert {task for _, task in sent} == {"", "mail"}


def test_a_task_that_is_not_sampled_is_counted_all_the_same(oap: Oap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_spans, "sampled", lambda: False)
    with background_span("mail"), background_span("attempt 2"):
        time.sleep(0.012)
    sent = oap.sent()
    assert {task for _, task in sent} == {"", "mail"}
    assert outcomes(sent, "mail") == {"started": 1, "succeeded": 1}
    assert min(sent["run_time_ms", "mail"]) >= 12


def test_the_tasks_of_a_request_are_counted_and_how_long_they_waited(oap: Oap) -> None:
    app = instrument(FastAPI())

    @app.get("/two")
    async def two(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(first)
        background_tasks.add_task(second)
        return "ok"

    async def first() -> None:
        await asyncio.sleep(0.03)

    async def second() -> None: ...

    with TestClient(app) as client:
        client.get("/two")
    sent = oap.sent()
    assert outcomes(sent, "first") == outcomes(sent, "second") == {"started": 1, "succeeded": 1}
    (waited,) = sent["queue_delay_ms", "second"]
    (ran,) = sent["run_time_ms", "first"]
    assert waited >= ran >= 30  # Starlette runs one after the other
    assert sent["queue_delay_mean_ms", "second"] == waited


def test_a_runner_says_when_a_task_really_began(oap: Oap, monkeypatch: pytest.MonkeyPatch) -> None:
    with background_span("mail"):
        time.sleep(0.05)
        meters.waited(1234)
        meters.waited(5)  # the first word counts
    sent = oap.sent()
    assert sent["queue_delay_ms", "mail"] == {1200: 1}
    assert max(sent["run_time_ms", "mail"]) < 50


def test_the_run_time_begins_when_the_runner_says(oap: Oap) -> None:
    meters.waited(5)  # outside of any task
    with background_span("mail"):
        meters.waited(1234)
        time.sleep(0.02)
    assert 20 <= min(oap.sent()["run_time_ms", "mail"]) < 60_000


def test_a_message_is_a_task_that_has_waited_since_it_was_sent(oap: Oap) -> None:
    headers = {"sw8-x": f"0-{int(time.time() * 1000) - 5_000}"}
    with consumer_span("orders", headers, queue="orders", broker="amqp://rabbit"):
        time.sleep(0.02)
    sent = oap.sent()
    assert outcomes(sent, "orders") == {"started": 1, "succeeded": 1}
    (delay,) = sent["queue_delay_ms", "orders"]
    assert 4_900 <= delay < 60_000
    assert 20 <= min(sent["run_time_ms", "orders"]) < 4_900


def test_what_is_no_count_and_no_time_is_noted(oap: Oap) -> None:
    meters.count("eaten", "mail")  # type: ignore[arg-type]
    with background_span("mail"):
        meters.waited("long")  # type: ignore[arg-type]
    assert faults() == {"metering a task": 2}
    _seen.clear()


def test_the_mean_is_that_of_all_values(oap: Oap) -> None:
    for delay in (100, 100, 400):
        with background_span("mail"):
            meters.waited(delay)
    assert oap.sent()["queue_delay_mean_ms", "mail"] == 200


def test_a_websocket_is_no_task(oap: Oap) -> None:
    app = instrument(FastAPI())

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    with TestClient(app) as client, client.websocket_connect("/ws"):
        pass
    assert {task for _, task in oap.sent()} == {""}


def test_the_most_that_ran_at_once_and_the_longest_are_reported(oap: Oap) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(background_span("mail", parent=_spans.NEW_TRACE))
        time.sleep(0.02)
    with background_span("resize"):
        time.sleep(0.02)
        sent = oap.sent()
        assert oap.sent()["tasks_running", "resize"] == 1  # it runs on
    assert sent["tasks_running", "mail"] == 3
    assert sent["tasks_running", "resize"] == 1
    assert sent["longest_task_ms", ""] >= 20
    sent = oap.sent()
    assert sent["tasks_running", "mail"] == 0
    assert sent["longest_task_ms", ""] == 0


def test_what_waits_is_asked_for_and_who_is_gone_is_not(oap: Oap) -> None:
    class Runner:
        def queued(self) -> dict[str, int]:
            return {"mail": 2}

    runner = Runner()
    meters.watch_queue(runner.queued)
    meters.watch_queue(lambda: {"mail": 1, "never ran": 4})
    sent = oap.sent()
    assert sent["tasks_queued", "mail"] == 3
    assert sent["tasks_queued", "never ran"] == 4
    del runner
    gc.collect()
    assert oap.sent()["tasks_queued", "mail"] == 1


def test_a_queue_that_can_not_be_asked_does_not_stop_the_report(oap: Oap) -> None:
    meters.watch_queue(lambda: dict[str, dict[str, int]]()["mail"])
    run("mail")
    assert outcomes(oap.sent(), "mail") == {"started": 1, "succeeded": 1}
    assert faults() == {"asking for the queue's length": 1}
    _seen.clear()


def test_what_oap_did_not_take_is_sent_again_and_said_once(oap: Oap, caplog: pytest.LogCaptureFixture) -> None:
    oap.counts = Counts(5, 0, 1)
    for oap.error in (UnreachableError("away"), RefusedError("no"), RefusedError("no")):
        with background_span("mail"):
            pass
        oap.report.send()
    assert [record.message[:42] for record in caplog.records] == ["OAP does not take the meters of this proce"]
    oap.error = None
    sent = oap.sent()
    assert outcomes(sent, "mail") == {"started": 3, "succeeded": 3}
    assert sum(sent["run_time_ms", "mail"].values()) == 3
    assert sent["tasks_running", "mail"] == 1
    assert (sent["segments_sent", ""], sent["segments_dropped", ""]) == (5, 1)
    oap.counts = Counts(7, 3, 1)
    sent = oap.sent()
    assert [sent[f"segments_{what}", ""] for what in ("sent", "queued", "dropped")] == [2, 3, 0]


def test_a_report_is_made_when_it_is_time_and_loops_are_asked_each_round(
    oap: Oap, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[int] = []
    monkeypatch.setattr(_loop_lag, "probe", lambda: probed.append(1))
    oap.report.step()
    oap.report._due -= 21
    oap.report.step()
    oap.report.step()
    assert (len(oap.collections), len(probed)) == (1, 3)
    monkeypatch.setattr(_meters, "enabled", False)
    oap.report.step()
    assert len(probed) == 3


def test_what_fails_in_reporting_meters_stays_there_and_loses_nothing(oap: Oap) -> None:
    run("mail")
    oap.error = ZeroDivisionError()
    oap.report._due = 0
    oap.report.step()
    oap.report.send_rest()
    assert faults() == {"reporting meters": 2}
    _seen.clear()
    oap.error = None
    assert outcomes(oap.sent(), "mail") == {"started": 1, "succeeded": 1}


def test_what_is_left_is_sent_at_the_end_and_nothing_if_nothing_is(oap: Oap) -> None:
    oap.report.send_rest()
    assert not oap.collections
    run("mail")
    oap.report.send_rest()
    oap.report.send_rest()
    assert len(oap.collections) == 1


def test_only_so_many_names_are_counted_apart(oap: Oap, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(_meters.NAMES_MAX + 3):
        run(f"job {number}")
    sent = oap.sent()
    assert outcomes(sent, "other") == {"started": 3, "succeeded": 3}
    assert ("tasks_started", f"job {_meters.NAMES_MAX}") not in sent
    (said,) = caplog.records
    assert said.message.startswith("100 task names are metered; 'job 100' and all further ones are counted as 'other'")


def test_a_name_that_protobuf_refuses_takes_no_others_away(oap: Oap) -> None:
    for name in ("a\udce9", "a\0", "a\udce9"):
        run(name)
    waiting = {"\udce9": 1}
    meters.watch_queue(lambda: waiting)
    sent = oap.sent()
    started = {task: value for (name, task), value in sent.items() if name == "tasks_started"}
    assert started == {r"a\udce9": 2, r"a\x00": 1}
    assert sent["tasks_queued", r"\udce9"] == 1


def test_an_error_that_is_no_exception_is_a_failure_and_no_end(oap: Oap) -> None:
    run("job", GeneratorExit())
    run("job", BaseExceptionGroup("", [ValueError(), BaseException()]))
    assert outcomes(oap.sent(), "job") == {"started": 2, "failed": 1, "cancelled": 1}


def test_a_name_that_is_none_breaks_nothing(oap: Oap) -> None:
    with background_span(["no", "name"]):  # type: ignore[arg-type]
        pass
    assert outcomes(oap.sent(), "['no', 'name']") == {"started": 1, "succeeded": 1}


def test_the_zeros_of_a_name_end_when_nobody_looks_at_them_any_more(oap: Oap, monkeypatch: pytest.MonkeyPatch) -> None:
    run("mail")
    oap.sent()
    assert ("tasks_failed", "mail") in oap.sent()
    monkeypatch.setattr(_meters, "IDLE_SECONDS", 0.0)
    time.sleep(0.001)
    assert ("tasks_failed", "mail") not in oap.sent()
    run("mail")
    assert outcomes(oap.sent(), "mail") == {"started": 1, "succeeded": 1}


def test_threads_lose_nothing(oap: Oap) -> None:
    def work() -> None:
        for _ in range(500):
            run("mail")

    threads = [threading.Thread(target=work) for _ in range(4)]
    total: dict[str, int] = {}
    for thread in threads:
        thread.start()
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)
        for (name, task), times in oap.sent().items():
            if task and times and (what := name.removeprefix("tasks_")) in _meters.COUNTED:
                total[what] = total.get(what, 0) + times
    assert total == {"started": 2_000, "succeeded": 2_000}


@pytest.mark.parametrize(
    ("milliseconds", "kept"), [(-5, 0), (0, 0), (99, 99), (104, 100), (105, 110), (10_003, 10_000), (98_765, 99_000)]
)
def test_a_time_is_rounded_to_two_digits(milliseconds: int, kept: int) -> None:
    assert _meters.rounded(milliseconds) == kept


async def test_a_loop_that_is_kept_busy_is_late(oap: Oap) -> None:
    _loop_lag.watch()
    _loop_lag.probe()
    await asyncio.sleep(0.01)
    assert (_loop_lag.take() or 0) < 1_000
    _loop_lag.probe()
    time.sleep(0.08)  # noqa: ASYNC251  # what must not be done in a loop
    assert 80 <= oap.sent()["loop_lag_ms", ""] < 60_000  # still late, as it has not answered yet
    await asyncio.sleep(0)
    assert oap.sent()["loop_lag_ms", ""] >= 80
    assert oap.sent()["loop_lag_ms", ""] == 0


def test_a_loop_that_is_closed_is_forgotten_and_the_others_are_asked(oap: Oap) -> None:
    class Loop:
        def __init__(self, *, closed: bool) -> None:
            self.closed = closed
            self.asked = 0

        def is_running(self) -> bool:
            return True

        def call_soon_threadsafe(self, _answer: Any, _loop: Any) -> None:
            if self.closed:
                raise RuntimeError
            self.asked += 1

    loops: list[Any] = [Loop(closed=False) for _ in range(5)]
    closed: Any = Loop(closed=True)
    for loop in loops[:3]:
        _loop_lag._loops.add(loop)
    _loop_lag.probe()
    for loop in (*loops, closed):
        _loop_lag._loops.add(loop)
    _loop_lag.probe()
    _loop_lag.probe()
    assert [loop.asked for loop in loops] == [1] * 5  # each until it has answered
    assert set(_loop_lag._loops) == set(loops)


async def block(seconds: float) -> None:
    _loop_lag.watch()
    _loop_lag.probe()
    time.sleep(seconds)  # noqa: ASYNC251  # what must not be done in a loop
    await asyncio.sleep(0)


def test_how_late_a_loop_was_is_told_after_its_end_and_once(oap: Oap) -> None:
    assert ("loop_lag_ms", "") not in oap.sent()
    asyncio.run(block(0.08))
    _loop_lag.probe()
    assert oap.sent()["loop_lag_ms", ""] >= 80
    _loop_lag.probe()
    assert ("loop_lag_ms", "") not in oap.sent()


async def test_how_late_a_loop_was_is_told_when_oap_takes_it(oap: Oap) -> None:
    await block(0.08)
    oap.error = UnreachableError("away")
    for _ in range(2):
        oap.report.send()
    oap.error = None
    assert oap.sent()["loop_lag_ms", ""] >= 80
    assert oap.sent()["loop_lag_ms", ""] == 0


def test_nothing_is_late_in_a_loop_between_two_runs(oap: Oap) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(block(0))
    oap.sent()
    loop.call_soon(_loop_lag.probe)
    loop.call_soon(loop.stop)
    loop.run_forever()  # which ends before the knock is heard
    _loop_lag.probe()
    time.sleep(0.08)
    loop.run_until_complete(asyncio.sleep(0))
    assert oap.sent().get(("loop_lag_ms", ""), 0) < 80
    loop.close()


@pytest.mark.parametrize("wanted", [True, False])
def test_tasks_are_metered_where_the_transport_can_and_the_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr(_meters, "_WANTED", wanted)
    for on in (True, False):
        _meters.switch(on=on)
        assert _meters.enabled == (on and wanted)


def test_a_task_that_can_not_be_metered_goes_on_and_it_is_noted() -> None:
    _meters.begin(object(), "mail")
    _meters.end(SimpleNamespace(meter=_meters.meter("mail"), end_time="late"), None)
    assert faults() == {"metering a task": 2}
    _seen.clear()


def test_two_tallies_make_a_larger_one() -> None:
    first, second = _meters.Tally(2), _meters.Tally(3)
    first.run_times, second.run_times = {10: 1, 20: 1}, {10: 2, 30: 4}
    first.failed, second.failed = 1, 5
    first.add(second)
    assert (first.run_times, first.failed, first.peak) == ({10: 3, 20: 1, 30: 4}, 6, 3)


def test_switched_off_it_counts_nothing(oap: Oap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_meters, "enabled", False)
    run("mail")
    meters.count("dead", "mail")
    oap.report.send()
    assert not _meters._tasks
    assert not oap.collections


def test_the_process_is_metered_in_whole_numbers_that_say_something(oap: Oap, monkeypatch: pytest.MonkeyPatch) -> None:
    _runtime_meters.begin()
    for _ in range(3):
        gc.collect()
    process = psutil.Process()
    before = process.num_threads()
    sent = oap.sent()
    threads = sorted((before, process.num_threads()))  # those of earlier tests may end meanwhile
    read = {name.removeprefix("instance_pvm_"): value for (name, _), value in sent.items() if "pvm" in name}
    assert read["gc_g2"] >= 3
    assert read["gc_time"] > 0
    assert threads[0] <= read["thread_active_count"] <= threads[1]
    assert 0 < read["process_mem_utilization"] < 100
    assert read["total_mem_utilization"] > read["process_mem_utilization"]
    assert read["process_mem_utilization"] == pytest.approx(process.memory_percent(), rel=0.2)
    assert {"gc_g0", "gc_g1", "total_cpu_utilization", "process_cpu_utilization"} <= set(read)


def test_all_collections_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((10.0, 10.25, 20.0, 20.5))
    monkeypatch.setattr(_runtime_meters, "time", SimpleNamespace(perf_counter=times.__next__, monotonic=time.monotonic))
    monkeypatch.setattr(_runtime_meters, "_gc_seconds", 0.0)
    monkeypatch.setattr(_runtime_meters, "_gc_began", 0.0)
    gc.disable()
    try:
        _runtime_meters.begin()
        _runtime_meters._note_collection("stop", {})  # of one that had begun before
        for phase in ("start", "stop") * 2:
            _runtime_meters._note_collection(phase, {})
        assert _runtime_meters.read()["instance_pvm_gc_time"] == 750
    finally:
        gc.enable()


def test_a_forked_process_meters_nothing_until_it_begins(oap: Oap) -> None:
    _runtime_meters.begin()
    _runtime_meters.begin()
    assert gc.callbacks.count(_runtime_meters._note_collection) == 1
    _runtime_meters.forget()
    assert _runtime_meters.read() == {}


def test_collections_are_those_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((1_000.0, 1_020.0, 1_040.0, 1_060.0, 1_080.0, 1_100.0))
    monkeypatch.setattr(
        _runtime_meters, "time", SimpleNamespace(monotonic=lambda: next(times), perf_counter=time.perf_counter)
    )
    _runtime_meters.begin()
    gc.disable()
    try:
        found = []
        for _ in range(5):
            gc.collect()
            found.append(_runtime_meters.read()["instance_pvm_gc_g2"])
    finally:
        gc.enable()
    assert found == [1, 2, 3, 3, 3]


def test_an_instance_has_a_name_to_read_which_oap_does_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "build-7.example.org")
    monkeypatch.setattr("os.getpid", lambda: 4711)
    template = "{service}@{host}:{pid}"
    assert instance_name(template, "shop") == "shop@build-7:4711"
    assert instance_name("blue", "shop") == "blue"
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 63)
    name = instance_name(template, "s" * 40)
    assert name == f"{'s' * 40}@{'h' * 9}:4711"
    assert len(name) == 55


def test_a_report_is_of_this_instance(oap: Oap) -> None:
    run("mail")
    oap.report.send()
    first = oap.collections[0].meterData[0]
    assert first.service == _meter_report.config.agent_name
    assert first.serviceInstance == _meter_report.config.agent_instance_name
    assert abs(first.timestamp / 1000 - time.time()) < 60
