"""How tasks run: attempts, room, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import traceback
from typing import TYPE_CHECKING

import httpx
import pytest
from demo_service.tasks import JOBS, Job, Retry, State
from starlette.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo_service.tasks import Room
    from skywalking.trace.span import Span

    from conftest import NewService, Service

    Spans = Callable[[str], list[Span]]


def tags(span: Span) -> dict[str, str]:
    return {tag.key: tag.val for tag in span.iter_tags()}


async def test_a_task_that_works_is_one_span_and_one_attempt(service: Service, spans: Spans) -> None:
    trace_id = (await service.get("/test")).headers["X-Trace-Id"]
    (task,) = await service.tasks()
    assert (task["name"], task["endpoint"], task["state"]) == ("background_sleep_task", "GET /test", "succeeded")
    assert (task["attempts"], task["trace_id"], task["error"]) == (1, trace_id, None)
    assert task["trace_url"] == f"http://127.0.0.1:8088/traces/{trace_id}"
    assert 0 <= task["queue_delay_ms"] < 1000
    assert 0 <= task["run_time_ms"] < 1000
    assert (await service.get(f"/tasks/{task['id']}")).json() == task
    (span,) = spans("background_sleep_task")
    delay = str(round(task["queue_delay_ms"]))
    assert tags(span) == {"task.id": task["id"], "task.outcome": "succeeded", "task.queue_delay_ms": delay}
    assert spans("attempt 1") == []


async def test_a_task_in_a_thread_takes_its_trace_along(
    service: Service, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "demo_service")
    trace_id = (await service.get("/test/threading?duration=0.1")).headers["X-Trace-Id"]
    (task,) = await service.tasks()
    assert (task["name"], task["state"], task["trace_id"]) == ("threaded_sleep_task", "succeeded", trace_id)
    (span,), (below,) = spans("threaded_sleep_task"), spans("sleep_in_thread")
    (ref,) = below.refs
    assert (ref.trace_id, ref.segment_id) == (trace_id, span.context.segment_id)
    lines = [record for record in caplog.records if record.threadName != "MainThread"]
    assert [line.getMessage() for line in lines] == [
        "Background task started: threaded_sleep_task",
        "Background task completed: threaded_sleep_task",
    ]


async def test_a_thread_ends_with_its_task(new_service: NewService) -> None:
    service = await new_service(attempt_seconds=0.1)
    await service.get("/test/threading?duration=50")
    (task,) = await service.tasks()
    assert task["state"] == "dead"
    await asyncio.sleep(0.1)
    waiting = [frame.f_back for frame in sys._current_frames().values()]
    assert "sleep_in_thread" not in "".join(line for frame in waiting for line in traceback.format_stack(frame))


async def test_a_task_that_fails_twice_succeeds_at_its_third_attempt(service: Service, spans: Spans) -> None:
    assert (await service.get("/test", headers={"X-Fault": "error;times=2"})).json() == "ok"
    (task,) = await service.tasks()
    assert (task["state"], task["attempts"], task["error"]) == ("succeeded", 3, None)
    assert await service.letters() == []
    attempts = [span for number in (1, 2, 3) for span in spans(f"attempt {number}")]
    assert [tags(attempt)["task.attempt"] for attempt in attempts] == ["1", "2", "3"]
    assert [attempt.error_occurred for attempt in attempts] == [True, True, False]
    assert all(int(tags(attempt)["task.wait_ms"]) >= 0 for attempt in attempts[1:])
    (span,) = spans("background_sleep_task")
    assert not span.error_occurred
    assert tags(span)["task.attempts"] == "3"
    assert {attempt.pid for attempt in attempts} == {span.sid}


async def test_the_first_attempt_has_its_own_length(
    service: Service, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def background_sleep_task(seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise OSError

    monkeypatch.setattr(
        "demo_service.tasks.sleep_tasks.background_sleep_task", Job(background_sleep_task, Retry(attempts=2))
    )
    await service.get("/test?duration=0.05")
    (task,) = spans("background_sleep_task")
    (first,), (second,) = spans("attempt 1"), spans("attempt 2")
    assert first.end_time - first.start_time >= 49
    assert task.start_time <= first.start_time
    assert first.end_time <= second.start_time


async def test_a_task_that_always_fails_is_a_dead_letter(
    service: Service, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    response = await service.post("/process", json={"id": 7, "x": [1]}, headers={"X-Fault": "error"})
    assert response.status_code == 200  # the client was answered long before
    (task,) = await service.tasks()
    assert (task["state"], task["attempts"]) == ("dead", 5)
    (letter,) = await service.letters()
    assert (letter["id"], letter["name"], letter["reason"]) == (task["id"], "process_data", "failed")
    assert letter["arguments"] == {"data": {"id": 7, "x": [1]}, "seconds": 0}
    assert (letter["attempts"], letter["trace_id"], letter["replayable"]) == (5, task["trace_id"], True)
    assert letter["error"]["type"] == "InjectedError"
    assert "strike" in letter["error"]["stack"]
    assert "tenacity" not in letter["error"]["stack"]
    (span,) = spans("process_data")
    assert span.error_occurred
    assert tags(span)["task.outcome"] == "dead"
    (log,) = span.logs
    assert "strike" in {item.key: item.val for item in log.items}["stack"]
    (line,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "process_data is a dead letter after 5 attempts: InjectedError" in line.getMessage()


async def test_a_programming_error_is_not_tried_again(
    service: Service, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def background_sleep_task(seconds: str) -> None:
        await asyncio.sleep(len(seconds))  # a float has no length

    monkeypatch.setattr("demo_service.tasks.sleep_tasks.background_sleep_task", Job(background_sleep_task, Retry()))
    await service.get("/test")
    (letter,) = await service.letters()
    assert (letter["attempts"], letter["error"]["type"]) == (1, "TypeError")
    assert spans("attempt 1") == []


async def test_a_task_may_have_no_second_attempt(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Job(JOBS["background_sleep_task"].run, Retry(attempts=1))
    monkeypatch.setattr("demo_service.tasks.sleep_tasks.background_sleep_task", once)
    await service.get("/test", headers={"X-Fault": "error;times=1"})
    assert [letter["attempts"] for letter in await service.letters()] == [1]


async def test_a_hanging_attempt_is_ended_and_tried_again(new_service: NewService) -> None:
    service = await new_service(attempt_seconds=0.05)
    await service.get("/test", headers={"X-Fault": "hang"})
    (letter,) = await service.letters()
    assert (letter["attempts"], letter["error"]["type"]) == (3, "TimeoutError")
    assert "longer than 0.05 s" in letter["error"]["message"]
    assert "strike" in letter["error"]["stack"]  # where it hung


async def test_a_delay_takes_its_time(service: Service) -> None:
    await service.get("/test", headers={"X-Fault": "delay=80ms"})
    (task,) = await service.tasks()
    assert (task["state"], task["attempts"]) == ("succeeded", 1)
    assert task["run_time_ms"] >= 80


@pytest.mark.parametrize(
    "fault",
    ["", "errors", "error;times=0", "error;times=", "delay=1", "delay=60s", "exit now", "hang,exit", "delay=\u0661s"],
)
async def test_an_unknown_fault_is_refused(service: Service, fault: str) -> None:
    response = await service.get("/test", headers={b"X-Fault": fault.encode()})
    assert response.status_code == 422
    assert "error;times=2" in response.json()["detail"]
    assert await service.tasks() == []


async def test_faults_are_off_unless_allowed(new_service: NewService) -> None:
    service = await new_service(faults_enabled=False)
    response = await service.get("/test", headers={"X-Fault": "exit"})
    assert response.status_code == 422
    assert "SERVICE_FAULTS_ENABLED" in response.json()["detail"]


async def test_the_oldest_finished_task_is_forgotten_first(new_service: NewService) -> None:
    service = await new_service(kept_tasks=2)
    for _ in range(3):
        await service.post("/action")
        await service.get("/test", headers={"X-Fault": "error"})
    assert [task["name"] for task in await service.tasks()] == ["long_running_task", "background_sleep_task"]
    answer = (await service.get("/tasks?state=dead&limit=1")).json()
    assert [task["name"] for task in answer["tasks"]] == ["background_sleep_task"]
    assert answer["counts"] == {"accepted": 0, "running": 0, "failed": 0, "succeeded": 1, "dead": 1, "cancelled": 0}


async def test_an_unknown_task_is_a_404(service: Service) -> None:
    assert (await service.get(f"/tasks/{'0' * 32}")).status_code == 404


async def test_past_the_limit_a_request_is_refused_and_nothing_is_accepted(new_service: NewService) -> None:
    service = await new_service(max_running=2, max_queued=1)
    running = [asyncio.create_task(service.get("/test?duration=1")) for _ in range(2)]
    await asyncio.sleep(0.1)
    # Three tasks for one place: none of them may be accepted.
    refused = await service.post("/complex-action")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "3 tasks run or wait" in refused.json()["detail"]
    waiting = asyncio.create_task(service.get("/test?duration=0"))
    await asyncio.sleep(0.1)
    assert (await service.get("/test")).status_code == 503
    answer = (await service.get("/tasks")).json()
    assert (answer["running"], answer["counts"]["accepted"]) == (2, 1)
    await asyncio.gather(*running, waiting)
    tasks = await service.tasks()
    assert [task["state"] for task in tasks] == ["succeeded"] * 3
    assert tasks[2]["queue_delay_ms"] > max(100, tasks[0]["queue_delay_ms"])
    assert (await service.get("/test?duration=0")).status_code == 200


@pytest.mark.parametrize(
    ("mode", "states", "reasons"),
    [
        ("sequential", ["dead"] * 3, ["failed", "interrupted", "interrupted"]),
        ("parallel", ["dead"] * 3, ["failed"] * 3),
    ],
)
async def test_what_starlette_drops_behind_a_failure_is_a_dead_letter(
    service: Service, mode: str, states: list[str], reasons: list[str]
) -> None:
    await service.post(f"/complex-action?mode={mode}", headers={"X-Fault": "error"})
    assert [task["state"] for task in await service.tasks()] == states
    letters = {letter["name"]: letter for letter in await service.letters()}
    assert [letters[name]["reason"] for name in ("task1", "task2", "task3")] == reasons
    if mode == "sequential":
        assert "never started" in letters["task2"]["error"]["message"]


async def test_a_task_whose_request_breaks_is_not_forgotten(
    service: Service, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_service.http.routes.Processing", lambda: 1 / 0)
    response = await service.post("/action")
    assert response.status_code == 500
    (letter,) = await service.letters()
    assert (letter["reason"], letter["trace_id"]) == ("interrupted", response.headers["X-Trace-Id"])
    (span,) = spans("long_running_task")
    assert (tags(span)["task.id"], span.error_occurred) == (letter["id"], True)
    assert [ref.trace_id for ref in span.refs] == [letter["trace_id"]]


async def test_a_drain_lets_tasks_end_and_turns_new_ones_away(new_service: NewService) -> None:
    service = await new_service(drain_seconds=5)
    running = asyncio.create_task(service.get("/test?duration=2"))
    await asyncio.sleep(0.1)
    drain = asyncio.create_task(service.app.state.room.drain())
    await asyncio.sleep(0.05)
    for refused in [await service.get("/health/ready"), await service.get("/test"), await service.post("/action")]:
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert (await service.get("/health/live")).status_code == 200
    assert (await service.get("/tasks")).json()["running"] == 1
    await drain
    await running
    assert [task["state"] for task in await service.tasks()] == ["succeeded"]


async def test_what_a_drain_interrupts_is_a_dead_letter_wherever_it_was(new_service: NewService, spans: Spans) -> None:
    service = await new_service(max_running=3, drain_seconds=1)
    requests = [
        service.get("/test?duration=50"),  # runs
        service.post("/complex-action?mode=sequential&duration=50"),  # one runs, two come behind it
        service.get("/test", headers={"X-Fault": "hang"}),
        service.post("/action?duration=50"),  # waits for a slot
    ]
    pending = [asyncio.create_task(request) for request in requests]
    await asyncio.sleep(0.1)
    await service.app.state.room.drain()
    assert [answer.status_code for answer in await asyncio.gather(*pending)] == [200] * 4
    letters = await service.letters()
    assert sorted(letter["name"] for letter in letters) == [
        "background_sleep_task",
        "background_sleep_task",
        "long_running_task",
        "task1",
        "task2",
        "task3",
    ]
    assert {letter["reason"] for letter in letters} == {"interrupted"}
    assert {letter["error"]["type"] for letter in letters} == {"Interrupted"}
    (span,) = spans("task1")
    assert span.error_occurred
    assert tags(span)["task.outcome"] == "interrupted"


async def fail_once(service: Service, wait_seconds: float, monkeypatch: pytest.MonkeyPatch) -> Room:
    """Start a task whose first attempt fails, and return while it waits for the second."""
    monkeypatch.setattr(Retry, "wait_seconds", lambda _retry, _failed: wait_seconds)
    await httpx.AsyncClient.send(service, service.build_request("GET", "/test", headers={"X-Fault": "error"}))
    room: Room = service.app.state.room
    (task,) = room.registry.newest(None, 10)
    assert (task.state, task.attempts) == (State.FAILED, 1)
    return room


async def test_a_task_that_waits_for_its_retry_does_not_keep_its_request(
    service: Service, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await fail_once(service, 0.2, monkeypatch)
    assert [one for one in gc.get_objects() if isinstance(one, Request) and one.url.path == "/test"] == []
    await room.drain()
    (letter,) = await service.letters()
    assert (letter["attempts"], letter["reason"]) == (3, "failed")
    (task,) = spans("background_sleep_task")
    assert task.end_time - task.start_time >= 399
    assert {spans(f"attempt {number}")[0].pid for number in (1, 2, 3)} == {task.sid}


async def test_a_task_that_waits_for_its_retry_can_be_interrupted(
    service: Service, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await fail_once(service, 50, monkeypatch)
    await room.close()
    (letter,) = await service.letters()
    assert (letter["attempts"], letter["reason"]) == (1, "interrupted")
    (task,), (first,) = spans("background_sleep_task"), spans("attempt 1")
    assert (tags(task)["task.outcome"], task.error_occurred, first.pid) == ("interrupted", True, task.sid)


async def test_a_task_that_the_server_cancels_is_a_dead_letter(service: Service) -> None:
    request = asyncio.create_task(service.get("/test?duration=50"))
    await asyncio.sleep(0.1)
    request.cancel()
    await asyncio.wait([request])
    assert [letter["reason"] for letter in await service.letters()] == ["interrupted"]
