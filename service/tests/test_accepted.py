"""What was accepted and not finished when its process was killed: dead letters, or a second run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from demo_service.accepted import Accepted, Journal, Level, claim_all
from demo_service.accepted import journal as journal_module
from demo_service.tasks import JOBS
from demo_service.tasks.jobs import job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from skywalking.trace.span import Span

    from conftest import NewService

TASK = Accepted("0" * 32, "background_sleep_task", "GET /test", '{"seconds": 0}', True, "trace", None, 1.0, 1)

PROGRAM = """
import asyncio, json, sys, time
from pathlib import Path
from demo_service.accepted import Accepted, Journal, Level
journal = Journal(Path(sys.argv[1]), Level(sys.argv[2]))
for values in json.loads(sys.argv[3]):
    journal.add([Accepted(*values)])
asyncio.run(journal.kept())
journal.add([Accepted("ended" + "0" * 27, "background_sleep_task", "", "{}", True, None, None, 1.0, 1)])
journal.forget("ended" + "0" * 27)
if sys.argv[2] == "batch": time.sleep(1)
print("kept", flush=True)
time.sleep(60)
"""


def values(task: Accepted) -> list[Any]:
    return [getattr(task, name) for name in journal_module.COLUMNS]


def killed(folder: Path, *tasks: Accepted, level: Level = Level.WRITTEN) -> None:
    """Leave behind what a process does that accepts these tasks and is killed."""
    with living(folder, *tasks, level=level) as process:
        process.send_signal(signal.SIGKILL)


def living(folder: Path, *tasks: Accepted, level: Level = Level.WRITTEN) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), level, json.dumps([values(task) for task in tasks])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "kept\n"
    return process


def left(folder: Path) -> list[Accepted]:
    """Return the tasks of all processes that are gone, and let them lie."""
    found = claim_all(folder, folder / "own")
    for one in found:
        one.release()
    return [task for one in found for task in one.tasks]


@pytest.fixture
def runs_twice() -> Iterator[list[int]]:
    """A job that may run again after a crash; the numbers that it was called with."""
    called: list[int] = []

    @job(idempotent=True, runs=2)
    async def counted(number: int) -> None:
        called.append(number)

    yield called
    del JOBS["counted"]


@pytest.mark.parametrize("level", [Level.BATCH, Level.WRITTEN, Level.SYNCED])
def test_what_was_accepted_is_there_after_a_kill_and_what_ended_is_not(tmp_path: Path, level: Level) -> None:
    tasks = [replace(TASK, id=f"{number:032}") for number in range(50)]
    killed(tmp_path, *tasks, level=level)
    assert left(tmp_path) == tasks


def test_what_lives_keeps_its_tasks(tmp_path: Path) -> None:
    with living(tmp_path, TASK) as process:
        assert left(tmp_path) == []
        process.kill()
    first = claim_all(tmp_path, tmp_path / "own")
    assert [one.tasks for one in first] == [[TASK]]
    program = (
        "from pathlib import Path; from demo_service.accepted import *\n"
        f"p = Path({str(tmp_path)!r}); print(claim_all(p, p))"
    )
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert second.stdout.strip() == "[]"  # nobody gets it twice
    first[0].finish()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_file_costs_what_is_torn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed(tmp_path, *[replace(TASK, id=f"{number:032}") for number in range(50)])
    (log,) = tmp_path.glob("*-wal")
    os.truncate(log, log.stat().st_size // 2)  # a loss of power
    assert len(left(tmp_path)) <= 50
    (path,) = tmp_path.glob("*.accepted")
    path.write_bytes(b"garbage" * 1_000)
    assert left(tmp_path) == []
    assert [one.suffix for one in tmp_path.glob("*.damaged")] == [".damaged"]
    assert "can't be read" in caplog.text


async def test_a_process_that_ends_as_it_should_leaves_nothing(new_service: NewService, tmp_path: Path) -> None:
    service = await new_service(journal="written")
    assert (await service.get("/test")).status_code == 200
    assert (await service.get("/test", headers={"X-Fault": "error"})).status_code == 200
    assert len(await service.letters()) == 1
    service.app.state.room._journal.close()
    assert list((tmp_path / "accepted").iterdir()) == []


async def test_what_a_killed_process_had_accepted_are_dead_letters_at_the_next_start(
    new_service: NewService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = replace(TASK, id="1" * 32, attempts=2, complete=False, arguments='{"seconds": "[redacted]"}')
    killed(tmp_path / "accepted", TASK, begun)
    service = await new_service(journal="written")
    letters = await until(service.letters, 2)
    by_id = {letter["id"]: letter for letter in letters}
    assert {letter["reason"] for letter in letters} == {"crashed"}
    assert by_id[TASK.id]["error"] == {
        "type": "Crashed",
        "message": "the process that ran it ended before it began",
        "stack": "",
    }
    assert by_id[begun.id]["error"]["message"] == "the process that ran it ended in attempt 2"
    assert [by_id[task.id]["attempts"] for task in (TASK, begun)] == [0, 2]
    assert [by_id[task.id]["replayable"] for task in (TASK, begun)] == [True, False]
    assert by_id[TASK.id]["arguments"] == {"seconds": 0}
    assert (await service.post(f"/dead-letters/{TASK.id}/replay")).status_code == 202
    assert "2 accepted tasks ended with their process: 2 are dead letters, 0 run again" in caplog.text
    assert left(tmp_path / "accepted") == []


async def test_an_idempotent_job_runs_again_as_often_as_it_may(
    new_service: NewService, tmp_path: Path, runs_twice: list[int], spans: Callable[[str], list[Span]]
) -> None:
    first = replace(TASK, name="counted", arguments='{"number": 7}')
    second = replace(first, id="2" * 32, run=2, arguments='{"number": 8}')
    secret = replace(first, id="3" * 32, complete=False)
    killed(tmp_path / "accepted", first, second, secret)
    service = await new_service(journal="written")
    letters = await until(service.letters, 2)
    assert {letter["id"] for letter in letters} == {second.id, secret.id}
    messages = {letter["id"]: letter["error"]["message"] for letter in letters}
    assert messages[second.id] == "the process that ran it ended before it began, in its run 2"
    await until(lambda: answer(runs_twice), 1)
    assert runs_twice == [7]
    task = (await service.get(f"/tasks/{first.id}")).json()
    assert (task["state"], task["replay_of"], task["name"]) == ("succeeded", "trace", "counted")
    (span,) = spans("counted")
    assert {tag.key: tag.val for tag in span.iter_tags()} | {"task.run": "2", "replay.of": "trace"} == {
        tag.key: tag.val for tag in span.iter_tags()
    }


def test_a_job_that_is_not_idempotent_never_runs_again() -> None:
    with pytest.raises(ValueError, match="only an idempotent job"):
        job(runs=2)


async def answer(found: list[Any]) -> list[Any]:
    return found


async def until(look: Callable[[], Any], count: int) -> list[Any]:
    """Look again until there is so much to see."""
    async with asyncio.timeout(20):
        while len(found := await look()) < count:  # noqa: ASYNC110  # another process's doing
            await asyncio.sleep(0.05)
    assert len(found) == count
    return list(found)


async def test_a_letter_that_was_stored_already_stays_as_it_is(
    new_service: NewService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = await new_service(journal="written")
    await service.get("/test", headers={"X-Fault": "error"})
    (letter,) = await service.letters()
    killed(tmp_path / "accepted", replace(TASK, id=letter["id"]))
    again = await new_service(journal="written")
    await until(lambda: answer([1] * ("accepted tasks ended with their process" in caplog.text)), 1)
    assert await again.letters() == [letter]


async def test_a_store_that_is_away_loses_nothing(new_service: NewService, tmp_path: Path) -> None:
    killed(tmp_path / "accepted", TASK)
    service = await new_service(journal="written", database_url=f"sqlite+aiosqlite:///{tmp_path}/none/letters.db")
    await asyncio.sleep(0.5)
    assert (await service.get("/dead-letters")).status_code == 503
    assert len(list((tmp_path / "accepted").glob("*.accepted"))) == 1


async def test_a_disk_that_can_not_be_written_hurts_no_task(
    new_service: NewService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "accepted").write_text("no folder")
    service = await new_service(journal="synced")
    for _ in range(3):
        assert (await service.get("/test")).status_code == 200
    assert [task["state"] for task in await service.tasks()] == ["succeeded"] * 3
    lines = [record for record in caplog.records if "Accepted tasks are not kept" in record.getMessage()]
    assert len(lines) == 1


def test_a_disk_that_is_full_for_long_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "MAX_PENDING", 10)
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.0)
    full = [True]

    def open_exclusively(path: Path, mode: str = "rwc") -> sqlite3.Connection:
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        return original(path, mode)

    original = journal_module.open_exclusively
    monkeypatch.setattr(journal_module, "open_exclusively", open_exclusively)
    journal = Journal(tmp_path, Level.WRITTEN)
    journal.add(replace(TASK, id=f"{number:032}") for number in range(25))
    deadline = time.monotonic() + 10
    while not journal._failures and time.monotonic() < deadline:
        time.sleep(0.01)
    full[0] = False
    while journal._changes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert journal.lost == 15
    journal.close()
    assert len(left(tmp_path)) == 10
    assert "Accepted tasks are kept again; 15 changes were lost meanwhile" in caplog.text


@pytest.mark.parametrize("level", [Level.WRITTEN, Level.SYNCED])
async def test_no_answer_says_accepted_before_it_is_kept(
    new_service: NewService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    monkeypatch.setattr(journal_module, "WAIT_SECONDS", 60.0)  # a busy machine's disk
    service = await new_service(journal=level.value)
    journal = service.app.state.room._journal
    transact = journal._transact
    order: list[str] = []

    def slow(changes: list[Any]) -> None:
        time.sleep(0.2)
        transact(changes)
        order.append("written")  # who waits for it is told afterwards

    monkeypatch.setattr(journal, "_transact", slow)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            order.append("answered")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": "/test", "raw_path": b"/test", "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"service")], "server": ("service", 80), "client": ("127.0.0.1", 1), "root_path": "",
        "http_version": "1.1", "state": {},
    }  # fmt: skip
    await service.app(scope, receive, send)
    assert order[0] == "written"
    assert "answered" in order  # on a busy machine after a second write


async def test_a_disk_that_hangs_delays_an_answer_for_a_while_only(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "WAIT_SECONDS", 0.2)
    service = await new_service(journal="written")
    monkeypatch.setattr(service.app.state.room._journal, "_write", lambda _changes: time.sleep(1))
    assert (await service.get("/test")).status_code == 200
    assert "The disk takes longer" in caplog.text


async def test_without_the_journal_there_is_none(new_service: NewService, tmp_path: Path) -> None:
    service = await new_service()
    assert (await service.get("/test")).status_code == 200
    assert not (tmp_path / "accepted").exists()
    assert "SKYWALKING_BACKGROUND_JOURNAL" not in os.environ


async def test_with_the_journal_spans_of_killed_tasks_are_closed_too(new_service: NewService, tmp_path: Path) -> None:
    await new_service(journal="batch")
    assert os.environ["SKYWALKING_BACKGROUND_JOURNAL"] == str(tmp_path / "running")
