"""Celery in this process: a broker in memory, and the worker's own way of running a task."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from skywalking.protocol.event.Event_pb2 import Event
from skywalking_background import _agent, _faults, _life_events, _messages, _meters, background_span, faults, untraced
from trees import find, outline, tags, tree

pytest.importorskip("celery", reason="Celery is not installed: pip install celery")

from billiard.einfo import ExceptionInfo
from celery import Celery, signals
from celery.app.trace import trace_task
from celery.concurrency import prefork, solo
from celery.events.dispatcher import EventDispatcher
from celery.exceptions import Ignore, Reject, Retry, WorkerLostError
from celery.worker.pidbox import gPidbox
from celery.worker.request import Context, Request
from kombu import Exchange, Queue
from skywalking_background import _celery
from skywalking_background.celery import instrument

if TYPE_CHECKING:
    from collections.abc import Callable

    from trees import Segments

THEIRS_RUNS = "the agent runs with its Celery plugin: start it with SW_AGENT_DISABLE_PLUGINS=sw_celery"


@pytest.fixture
def app(segments: Segments) -> Celery:
    made = Celery("unit", broker="memory://", set_as_current=False)
    return instrument(instrument(made))


def run(app: Celery, body: Callable[..., Any], *args: Any, **request: Any) -> None:
    """Run a task as a worker's process does, with this request."""
    task = app.task(name=f"t-{uuid4().hex[:4]}" if request.pop("unnamed", False) else "task", bind=True, shared=False)(
        body
    )
    request = {"id": "7", "delivery_info": {"exchange": "", "routing_key": "celery"}, "retries": 0, **request}
    trace_task(task, request["id"], args, {}, request, app=app)


def nothing(_self: Any) -> None: ...


def test_a_task_stays_what_it_is(app: Celery) -> None:
    def add(x: int, y: int = 2) -> int:
        """Add."""
        return x + y

    task = app.task(add)
    assert task.run.__func__ is add if inspect.ismethod(task.run) else task.run is add
    assert inspect.signature(task.run) == inspect.signature(add)
    assert (task(1), task.__doc__) == (3, "Add.")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        task.delay()


def test_sending_is_one_span_and_leaves_its_place(app: Celery, segments: Segments) -> None:
    seen: list[dict[str, Any]] = []

    def look(headers: dict[str, Any], **_: object) -> None:
        seen.append(dict(headers))

    signals.after_task_publish.connect(look)
    with background_span("client"):
        app.send_task("add", (1, 2), headers={"colour": "green"})
        app.send_task("add", (1, 2), queue="films")
    assert outline(segments) == "Local client\n  Exit celery/add\n  Exit celery/add"
    sends = [span for segment in segments for span in segment.spans if span.op == "celery/add"]
    assert [tags(span)["mq.queue"] for span in sends] == ["celery", "films"]
    assert [(span.layer.name, span.component.name, span.peer) for span in sends] == [("MQ", "Celery", "localhost")] * 2
    assert seen[0]["colour"] == "green"
    assert seen[0]["sw8"].split("-")[3] == str(sends[0].sid)
    assert abs(int(seen[0]["sw8-x"].split("-")[1]) - time.time() * 1000) < 60_000


def test_a_publish_that_fails_reaches_the_caller(
    app: Celery, segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("away")

    monkeypatch.setattr(app.amqp, "send_task_message", away)
    with background_span("client"):
        with pytest.raises(OSError, match="away"):
            app.send_task("add")
        with background_span("piece"):
            pass
    assert outline(segments) == "Local client\n  Exit celery/add failed\n  Local piece"


def test_a_task_goes_on_from_where_it_was_sent(app: Celery, segments: Segments) -> None:
    headers: dict[str, Any] = {}
    signals.after_task_publish.connect(lambda **told: headers.update(told["headers"]), weak=False, dispatch_uid="look")
    with background_span("client"):
        app.send_task("task")
    signals.after_task_publish.disconnect(dispatch_uid="look")

    def body(_self: Any) -> None:
        with background_span("piece"):
            pass

    run(app, body, **{**headers, "id": "7", "retries": 2})
    assert outline(segments) == tree("""
        Entry celery/task CROSS_PROCESS
          Local piece
        Local client
          Exit celery/task""")
    found = tags(find([segments[-1]], "celery/task"))
    assert int(found.pop("transmission.latency")) < 60_000
    assert found == {
        "mq.broker": "memory://localhost",
        "mq.queue": "celery",
        "task.attempt": "3",
        "task.id": "7",
        "task.name": "task",
        "task.outcome": "succeeded",
    }


@pytest.mark.parametrize(
    ("error", "outcome", "failed"),
    [
        (Ignore(), "ignored", False),
        (Reject("no", requeue=False), "rejected", False),
        (Retry("again"), "retried", False),
        (ValueError("no"), "failed", True),
        (SystemExit(1), "failed", True),
        (KeyboardInterrupt(), "failed", True),
    ],
)
def test_how_a_task_ends(app: Celery, segments: Segments, error: BaseException, outcome: str, failed: bool) -> None:
    def body(_self: Any) -> None:
        raise error

    with suppress(SystemExit, KeyboardInterrupt):
        run(app, body)
    (span,) = segments[0].spans
    assert (tags(span)["task.outcome"], span.error_occurred, len(span.logs)) == (outcome, failed, failed)
    assert (span.component.name, span.layer.name) == ("Celery", "MQ")
    if failed:
        assert "in body" in span.logs[0].items[-1].val


def test_redelivered_and_due_later(app: Celery, segments: Segments) -> None:
    now = time.time() * 1000
    eta = (datetime.now(UTC) - timedelta(seconds=1.5)).isoformat()
    run(app, nothing, **{"sw8-x": f"0-{int(now) - 9000}", "eta": eta})
    run(app, nothing, delivery_info={"routing_key": "celery", "redelivered": True})
    first, second = (tags(segment.spans[0]) for segment in segments)
    assert 1000 <= int(first["transmission.latency"]) < 9000
    assert "mq.redelivered" not in first
    assert second["mq.redelivered"] == "true"
    assert "transmission.latency" not in second


@pytest.mark.parametrize("sw8", ["nonsense", "1-a-b-c", 7, None, b"\xff"])
def test_a_strangers_header_begins_a_trace(app: Celery, segments: Segments, sw8: object) -> None:
    run(app, nothing, sw8=sw8)
    assert outline(segments) == "Entry celery/task"


def test_a_sender_that_is_not_traced_is_respected(app: Celery, segments: Segments) -> None:
    headers: dict[str, Any] = {}
    signals.after_task_publish.connect(lambda **told: headers.update(told["headers"]), weak=False, dispatch_uid="look")
    with untraced():
        app.send_task("task")
    signals.after_task_publish.disconnect(dispatch_uid="look")

    def body(_self: Any) -> None:
        with background_span("piece"):
            pass

    run(app, body, **{**headers, "id": "7"})
    assert segments == []


def test_eager_tasks_are_pieces_of_their_caller(app: Celery, segments: Segments) -> None:
    inner = app.task(name="inner", bind=True)(nothing)

    @app.task(name="outer", bind=True, max_retries=1)
    def outer(self: Any) -> None:
        inner.apply()
        if not self.request.retries:
            self.retry(countdown=0)

    with background_span("client"):
        outer.apply()
    assert outline(segments) == tree("""
        Local client
          Local celery/outer
            Local celery/inner
          Local celery/outer
            Local celery/inner""")


@pytest.mark.parametrize(("error", "outcome"), [(Retry("again"), "retried"), (ValueError("no"), "failed")])
def test_an_eager_task_whose_caller_wants_its_error(
    app: Celery, segments: Segments, error: Exception, outcome: str
) -> None:
    @app.task(name="eager", shared=False)
    def eager() -> None:
        raise error

    with pytest.raises(type(error)):
        eager.apply(throw=True)
    span = find(segments, "celery/eager")
    assert (tags(span)["task.outcome"], span.error_occurred) == (outcome, outcome == "failed")
    assert span.component.name == "Celery"


def test_the_delay_of_rabbitmqs_own_is_no_queue(app: Celery, segments: Segments) -> None:
    key = "0." * 26 + "1.1.films"
    run(app, nothing, delivery_info={"exchange": "celery_delayed_delivery", "routing_key": key})
    assert tags(segments[0].spans[0])["mq.queue"] == "films"


def test_switched_off_an_app_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "start", None)
    monkeypatch.setattr(_celery, "install", None)
    for enabled, variable in ((False, "true"), (None, "false")):
        monkeypatch.setenv("SKYWALKING_BACKGROUND_ENABLED", variable)
        made = Celery("off", set_as_current=False)
        assert instrument(made, enabled=enabled) is made


def test_the_agents_plugin_is_named_with_what_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs() -> None: ...

    theirs.__module__ = "skywalking.plugins.sw_celery"
    monkeypatch.setattr(Celery, "send_task", theirs)
    with pytest.raises(RuntimeError) as caught:
        _celery.install()
    assert (
        str(caught.value) == "the agent runs with its Celery plugin: start it with SW_AGENT_DISABLE_PLUGINS=sw_celery"
    )


def test_what_the_worker_says_besides_is_in_no_trace(app: Celery, segments: Segments) -> None:
    seen: list[str] = []

    class Connections:
        def connection_for_read(self) -> None:
            with background_span("read"):
                seen.append("loop")
            raise OSError

    class Producer:
        def publish(self, *_: object, **__: object) -> None:
            with background_span("publish"):
                seen.append("event")

    with background_span("around"):
        with suppress(OSError):
            gPidbox.loop(gPidbox.__new__(gPidbox), Connections())
        EventDispatcher(enabled=False, app=app)._publish("task-sent", Producer(), "task.sent")
    assert (seen, outline(segments)) == (["loop", "event"], "Local around")


def test_what_fails_in_tracing_stays_there(app: Celery, segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    done: list[int] = []

    def body(_self: Any) -> None:
        done.append(1)

    for module, name in (
        (_celery, "_queue"),
        (_celery, "_broker"),
        (_celery, "_tag_task"),
        (_messages, "write"),
        (_messages, "read"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            with background_span("client"):
                assert app.send_task("task").id
            run(app, body)
    assert len(done) == 5
    assert sum(faults().values()) >= 5
    assert "looking for Celery's broker" in faults()
    _faults._seen.clear()
    run(app, nothing)
    assert outline([segments[-1]]) == "Entry celery/task"


def test_brokers_to_send_to_and_to_read_from_may_be_two(segments: Segments) -> None:
    app = instrument(
        Celery("two", broker_read_url="memory://in", broker_write_url="memory://out", set_as_current=False)
    )
    app.send_task("add")
    run(app, nothing)
    assert [segment.spans[0].peer for segment in segments] == ["out", "in"]
    app.conf.broker_write_url = "memory://elsewhere"
    app.send_task("add")
    assert segments[2].spans[0].peer == "elsewhere"
    for option in ({"connection": "memory://own"}, {"producer": "memory://own"}):
        ((kind, url),) = option.items()
        with app.connection_for_write(url) as connection:
            app.send_task("add", **{kind: connection if kind == "connection" else connection.Producer()})
        assert segments.pop().spans[0].peer == "own"


def test_the_queue_is_that_of_the_app_which_the_exchange_and_the_key_lead_to(app: Celery, segments: Segments) -> None:
    exchange = Exchange("media")
    app.conf.task_queues = [Queue("films", exchange, routing_key="f"), Queue("photos", exchange, routing_key="p")]
    expected = {("media", "p"): "photos", ("media", "x"): "x", ("media", None): "media", (None, "films"): "films"}
    for (name, key), queue in expected.items():
        run(app, nothing, delivery_info={"exchange": name, "routing_key": key})
        assert tags(segments.pop().spans[0])["mq.queue"] == queue
    run(app, nothing, delivery_info=None)
    assert tags(segments.pop().spans[0])["mq.queue"] == ""
    app.send_task("add", exchange=exchange, routing_key="p")
    assert tags(segments.pop().spans[0])["mq.queue"] == "photos"


# What the worker's main process sees of a task, and of itself.


SENT = {"id": "7", "task": "task", "retries": 1, "sw8-x": "0-1000000000000"}
DELIVERY = {"exchange": "", "routing_key": "celery", "redelivered": True}


def request(app: Celery) -> Request:
    """A task's message as the worker's main process has it, which began the task 2 s ago."""
    app.task(name="task", bind=True, shared=False)(nothing)
    message = SimpleNamespace(
        headers=SENT,
        body="",
        payload=((), {}, {}),
        content_type="application/json",
        content_encoding="utf-8",
        delivery_info=DELIVERY,
        properties={},
    )
    made = Request(message, app=app)
    made.time_start = time.time() - 2
    return made


class Sender:
    """What a signal comes from, by which Celery looks for who wants to hear it."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def raised(error: Exception) -> ExceptionInfo:
    try:
        raise error  # noqa: TRY301
    except Exception:  # noqa: BLE001
        return ExceptionInfo()


def lose(app: Celery) -> None:
    request(app).on_failure(raised(WorkerLostError("signal 9")), send_failed_event=False)


def let_time_out(app: Celery) -> None:
    request(app).on_timeout(soft=False, timeout=1.5)


def revoke(app: Celery, *, expired: bool) -> None:
    sender = request(app).task
    context = Context({**SENT, "delivery_info": DELIVERY})
    signals.task_revoked.send(sender, request=context, terminated=False, expired=expired, signum=None)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(_meters, "count", lambda *what: found.append(what))
    return found


LOST = [
    (lose, "crashed", "WorkerLostError"),
    (let_time_out, "timed out", "TimeLimitExceeded"),
    (lambda app: revoke(app, expired=False), "revoked", ""),
    (lambda app: revoke(app, expired=True), "expired", ""),
]


@pytest.mark.parametrize("lost", LOST)
def test_what_never_ends_in_its_process_is_told_by_the_main_one(
    app: Celery, segments: Segments, counted: list[Any], lost: tuple[Callable[[Celery], None], str, str]
) -> None:
    happens, outcome, failed = lost
    with background_span("the worker's own"):
        happens(app)
        with background_span("goes on"):
            pass
    span = find(segments, "celery/task")
    assert outline([segment for segment in segments if span in segment.spans]).startswith("Entry celery/task")
    assert outline([segments[-1]]) == "Local the worker's own\n  Local goes on"
    assert int(tags(span).pop("transmission.latency")) > 1000
    assert {key: value for key, value in tags(span).items() if key != "transmission.latency"} == {
        "mq.broker": "memory://localhost",
        "mq.queue": "celery",
        "mq.redelivered": "true",
        "task.attempt": "2",
        "task.id": "7",
        "task.name": "task",
        "task.outcome": outcome,
    }
    ran = 2 if failed else 0
    assert ran <= (span.end_time - span.start_time) / 1000 < ran + 1
    assert [item.val for log in span.logs for item in log.items if item.key == "error.kind"] == [failed] * bool(failed)
    assert counted == [("crashed", "celery/task", 1)] * bool(failed)


def test_what_the_task_tells_of_itself_is_not_told_twice(app: Celery, segments: Segments) -> None:
    made = request(app)
    made.on_failure(raised(ValueError("the task's own")), send_failed_event=False)
    made.on_timeout(soft=True, timeout=1)
    signals.task_revoked.send(made.task, request=Context(SENT), terminated=True, expired=False, signum="TERM")
    assert segments == []


@pytest.mark.parametrize("headers", [SENT, None])
def test_a_task_that_nobody_knows_is_a_failed_span(app: Celery, segments: Segments, headers: Any) -> None:
    message = SimpleNamespace(headers=headers, delivery_info=DELIVERY)
    told = {"message": message, "exc": KeyError("task"), "name": "gone", "id": "7"}
    with background_span("the worker's own"):
        signals.task_unknown.send(Sender(app=app), **told)
    span = find(segments, "celery/unregistered task")
    assert (span.error_occurred, span.kind.name) == (True, "Entry")
    found = tags(span)
    assert (found["task.name"], found["task.outcome"], found["mq.queue"]) == ("gone", "rejected", "celery")
    assert found["task.attempt"] == ("2" if headers else "1")


@pytest.mark.parametrize(
    ("signal", "pool", "told"),
    [
        (signals.worker_ready, solo, "Start"),
        (signals.worker_ready, prefork, ""),
        (signals.worker_ready, None, "Start"),
        (signals.worker_shutdown, solo, "Shutdown"),
        (signals.worker_shutdown, prefork, ""),
        (signals.worker_process_init, None, "Start"),
        (signals.worker_process_shutdown, None, "Shutdown"),
    ],
)
def test_who_takes_tasks_appears_and_says_when_it_ends(
    app: Celery, monkeypatch: pytest.MonkeyPatch, signal: Any, pool: Any, told: str
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(_agent, "begin_reporting", lambda: begun.append(1))
    _life_events.forget_all()
    worker = Sender() if pool is None else Sender(pool=pool.TaskPool.__new__(pool.TaskPool))
    signal.send(sender=worker, pid=1, exitcode=0)
    events = [Event.FromString(one) for one in _life_events._waiting]
    _life_events.forget_all()
    assert "".join(one.name for one in events) == told
    assert len(begun) == (told == "Start")
    for one in events:
        says = "takes tasks" if told == "Start" else "takes no more tasks"
        assert one.message == f"process {os.getpid()} {says}"


def test_the_workers_own_talk_is_in_no_trace(app: Celery, segments: Segments) -> None:
    def work() -> None:
        signals.worker_init.send(sender=None)
        with background_span("beat"):
            pass

    copy_context().run(work)
    assert segments == []


def test_a_task_that_is_ended_for_its_time_is_told_by_the_main_process_only(app: Celery, segments: Segments) -> None:
    def body(_self: Any) -> None:
        time.sleep(0.02)
        raise SystemExit(1)

    for limit, ends in (((0.01, None), []), ((60, None), ["failed"])):
        with suppress(SystemExit):
            run(app, body, unnamed=True, timelimit=limit)
        assert [tags(segment.spans[0])["task.outcome"] for segment in segments] == ends


def alone(program: str, **variables: str) -> str:
    environment = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9", **variables}
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


SHOW = "import celery; print(celery.Celery.send_task.__code__.co_filename.rpartition('/')[2]);"


def test_ours_is_there_as_soon_as_celery_is() -> None:
    assert alone("import skywalking_background as sw; sw.start();" + SHOW) == "_celery.py"
    assert alone("import celery, skywalking_background as sw; sw.start();" + SHOW) == "_celery.py"
    assert alone("import skywalking_background.celery, sys; print('celery' in sys.modules)") == "False"


def test_switched_off_nothing_is_there() -> None:
    program = """if True:
        from celery import Celery
        from skywalking_background.celery import instrument
        instrument(Celery(), enabled=%s)
    """
    for enabled, variables in (("False", {}), ("None", {"SKYWALKING_BACKGROUND_ENABLED": "false"})):
        assert alone(program % enabled + "\n" + SHOW, **variables) == "base.py"


def test_the_agents_own_plugin_is_not_wanted_besides() -> None:
    program = """if True:
        import skywalking_background
        from skywalking import agent, config
        config.agent_disable_plugins = ["sw_fastapi"]
        agent.start()
        from celery import Celery
        from skywalking_background.celery import instrument
        try:
            instrument(Celery())
        except RuntimeError as error:
            print(error)
    """
    said = alone(program, SW_AGENT_LOGGING_LEVEL="CRITICAL", SW_AGENT_DISABLE_PLUGINS="sw_fastapi")
    assert said == THEIRS_RUNS
