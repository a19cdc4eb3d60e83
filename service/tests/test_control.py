"""Cancel, pause and resume, and dead letters in bulk: each with its line in the log and its tags in the trace."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from skywalking.trace.span import Span

    from conftest import NewService, Service


def tags(span: Span) -> dict[str, str]:
    return {tag.key: tag.val for tag in span.iter_tags()}


def impatient(service: Service) -> httpx.AsyncClient:
    """Return a client that waits for no retries."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://service")


async def in_state(service: httpx.AsyncClient, state: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many tasks are in a state."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found := (await service.get(f"/tasks?state={state}")).json()["tasks"]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the service tells nobody
    return found


@asynccontextmanager
async def running(service: Service, path: str = "/test?duration=60", state: str = "running") -> AsyncIterator[Any]:
    """A task that runs; its request returns when it has ended."""
    request = asyncio.create_task(service.get(path))
    yield (await in_state(service, state))[-1]
    assert (await asyncio.wait_for(request, 10)).status_code == 200


@pytest.mark.parametrize("path", ["/test?duration=60", "/test/threading?duration=60"])
async def test_a_running_task_can_be_cancelled(
    service: Service, spans: Callable[[str], list[Span]], caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async with running(service, path) as task:
        answer = await service.post(f"/tasks/{task['id']}/cancel")
        assert (answer.status_code, answer.json()) == (202, {"status": "cancelling", "task_id": task["id"]})
    assert (await service.get(f"/tasks/{task['id']}")).json()["state"] == "cancelled"
    assert await service.letters() == []
    (span,) = spans(task["name"])
    assert tags(span)["task.outcome"] == "cancelled"
    (request,) = spans("HTTP POST /tasks/{task_id}/cancel")
    handling = next(one for one in spans("FastAPI request handling") if "audit.action" in tags(one))
    assert tags(handling)["audit.action"] == "cancel"
    assert tags(handling)["audit.target"] == f"task {task['id']}"
    assert not request.error_occurred
    assert f"audit: cancel of task {task['id']} by " in caplog.text


async def test_a_task_that_has_ended_can_not_be_cancelled(service: Service) -> None:
    await service.get("/test")
    (task,) = await service.tasks()
    answer = await service.post(f"/tasks/{task['id']}/cancel")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "the task has ended already: succeeded"
    assert (await service.post(f"/tasks/{'0' * 32}/cancel")).status_code == 404


async def test_one_that_waits_for_its_retry_or_its_slot_can_be_cancelled(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch, spans: Callable[[str], list[Span]]
) -> None:
    from demo_service.tasks import Retry

    service = impatient(await new_service(max_running=1))
    monkeypatch.setattr(Retry, "wait_seconds", lambda _retry, _failed: 60.0)
    failing = asyncio.create_task(service.get("/test", headers={"X-Fault": "error;times=1"}))
    await in_state(service, "failed")
    waiting = asyncio.create_task(service.get("/test"))
    await in_state(service, "accepted")
    for task in (await service.get("/tasks")).json()["tasks"]:
        assert (await service.post(f"/tasks/{task['id']}/cancel")).status_code == 202
    await asyncio.wait_for(asyncio.gather(failing, waiting), 10)
    assert len(await in_state(service, "cancelled", 2)) == 2
    assert [tags(span)["task.outcome"] for span in spans("background_sleep_task")] == ["cancelled", "cancelled"]


async def test_the_tasks_beside_a_cancelled_one_go_on(service: Service) -> None:
    request = asyncio.create_task(service.post("/complex-action?duration=0.5&mode=sequential"))
    await in_state(service, "running")
    first, second, _third = await service.tasks()
    for task in (first, second):  # one that runs, and one that was not begun
        assert (await service.post(f"/tasks/{task['id']}/cancel")).status_code == 202
    assert (await asyncio.wait_for(request, 20)).status_code == 200
    assert [task["state"] for task in await service.tasks()] == ["cancelled", "cancelled", "succeeded"]
    assert await service.letters() == []


async def test_a_paused_job_waits_and_the_others_do_not(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    assert (await service.post("/jobs/background_sleep_task/pause")).json() == {
        "name": "background_sleep_task",
        "paused": True,
    }
    assert (await service.post("/action")).status_code == 200
    async with running(service, "/test", "accepted"):
        await asyncio.sleep(0.1)
        states = {task["name"]: task["state"] for task in await service.tasks()}
        assert states == {"long_running_task": "succeeded", "background_sleep_task": "accepted"}
        paused = [job["name"] for job in (await service.get("/jobs")).json()["jobs"] if job["paused"]]
        assert paused == ["background_sleep_task"]
        assert (await service.post("/jobs/background_sleep_task/resume")).json()["paused"] is False
    assert {task["state"] for task in await service.tasks()} == {"succeeded"}
    assert "audit: pause of job background_sleep_task by " in caplog.text
    assert "audit: resume of job background_sleep_task by " in caplog.text
    assert (await service.post("/jobs/none/pause")).status_code == 404


async def test_a_pause_holds_for_other_processes_and_after_a_restart(new_service: NewService) -> None:
    first, second = await new_service(), await new_service()
    await first.post("/jobs/background_sleep_task/pause")
    second.app.state.room.gates.look()
    assert second.app.state.room.gates.paused == {"background_sleep_task"}
    async with running(second, "/test", "accepted"):
        await first.post("/jobs/background_sleep_task/resume")  # the other one notices by itself


async def test_a_paused_task_does_not_keep_the_service_from_its_end(new_service: NewService) -> None:
    service = await new_service()
    await service.post("/jobs/background_sleep_task/pause")
    async with running(service, "/test?duration=60", "accepted"):
        await service.app.state.room.close()
    (letter,) = await service.letters()
    assert letter["reason"] == "interrupted"


async def dead(service: Service, *faults: str, path: str = "/test") -> None:
    for fault in faults:
        await service.get(path, headers={"X-Fault": fault})


async def test_many_dead_letters_are_replayed_each_in_a_trace_of_its_own(
    service: Service, spans: Callable[[str], list[Span]], caplog: pytest.LogCaptureFixture
) -> None:
    await dead(service, "error", "error", "error")
    await dead(service, "error", path="/test/threading")
    answer = await service.post("/dead-letters/replay?name=background_sleep_task&limit=2")
    assert answer.status_code == 202
    assert (len(answer.json()["task_ids"]), answer.json()["skipped"], answer.json()["refused"]) == (2, 0, None)
    await in_state(service, "succeeded", 2)
    assert len(await service.letters()) == 2
    again = [span for span in spans("background_sleep_task") if "replay.of" in tags(span)]
    assert len({span.context.trace_id for span in again}) == len(again) == 2
    tasks = [task for task in await service.tasks() if task["replay_of"]]
    assert {task["trace_id"] for task in tasks} == {span.context.trace_id for span in again}
    assert "audit: replay of dead letters by " in caplog.text
    assert "name=background_sleep_task&limit=2, replayed 2" in caplog.text


async def test_a_replay_that_finds_no_room_leaves_the_rest(new_service: NewService) -> None:
    service = await new_service(max_running=1, max_queued=0)
    await dead(service, "error", "error")
    async with running(service) as task:
        answer = (await service.post("/dead-letters/replay?all=true")).json()
        assert answer["task_ids"] == []
        assert answer["refused"].startswith("1 tasks run or wait already")
        assert len(await service.letters()) == 2
        await service.post(f"/tasks/{task['id']}/cancel")


async def test_many_dead_letters_are_deleted_by_name_error_reason_and_time(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    await dead(service, "error", "error")
    await dead(service, "error", path="/test/threading")
    (letter, *_) = await service.letters()

    async def delete(**wanted: str) -> int:
        answer = await service.request("DELETE", "/dead-letters", params=wanted)
        assert answer.status_code == 200
        deleted: int = answer.json()["deleted"]
        return deleted

    assert await delete(name="nobody") == await delete(error="None") == await delete(reason="crashed") == 0
    assert await delete(after="2100-01-01T00:00:00Z") == await delete(before="2000-01-01T00:00:00+01:00") == 0
    assert await delete(name="threaded_sleep_task", error=letter["error"]["type"]) == 1
    assert await delete(after="2000-01-01T00:00:00Z", before="2100-01-01T00:00:00Z", reason="failed") == 2
    assert await service.letters() == []
    assert await delete(all="true") == 0
    assert "audit: delete of dead letters by " in caplog.text


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/dead-letters"), ("POST", "/dead-letters/replay")])
async def test_all_of_them_must_be_meant(service: Service, method: str, path: str) -> None:
    await dead(service, "error")
    for query in ("", "?after=2020-01-01T00:00:00", "?reason=bored", "?nmae=x", "?name="):
        assert (await service.request(method, path + query)).status_code == 422, query
    assert len(await service.letters()) == 1
