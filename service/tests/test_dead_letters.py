"""Dead letters: what is kept, what is not, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from demo_service.dead_letters import letter_file, store
from demo_service.tasks import Job, Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import NewService, Service

ERROR = {"X-Fault": "error"}


async def test_a_replay_runs_the_task_again_once_and_refers_to_the_old_trace(service: Service) -> None:
    await service.post("/process", json={"id": 1, "x": "y"}, headers=ERROR)
    (letter,) = await service.letters()
    answer = await service.post(f"/dead-letters/{letter['id']}/replay")
    assert answer.status_code == 202
    _, task = await service.tasks()
    assert answer.json() == {"status": "processing", "task_id": task["id"]}
    assert (task["state"], task["replay_of"]) == ("succeeded", letter["trace_id"])
    assert task["trace_id"] == answer.headers["X-Trace-Id"] != letter["trace_id"]
    assert await service.letters() == []
    assert (await service.post(f"/dead-letters/{letter['id']}/replay")).status_code == 404


async def test_a_replay_that_fails_is_a_new_letter_that_refers_to_the_old_trace(service: Service) -> None:
    await service.get("/test", headers=ERROR)
    (first,) = await service.letters()
    await service.post(f"/dead-letters/{first['id']}/replay", headers=ERROR)
    (second,) = await service.letters()
    assert second["replay_of"] == first["trace_id"]
    assert second["id"] != first["id"]


async def test_of_many_replays_at_once_one_runs(service: Service) -> None:
    await service.get("/test", headers=ERROR)
    (letter,) = await service.letters()
    path = f"/dead-letters/{letter['id']}/replay"
    answers = await asyncio.gather(*(service.post(path) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [202] + [404] * 9
    assert len(await service.tasks()) == 2


async def test_a_replay_that_finds_no_room_keeps_its_letter(new_service: NewService) -> None:
    service = await new_service(max_running=1, max_queued=0)
    await service.get("/test", headers=ERROR)
    (letter,) = await service.letters()
    running = asyncio.create_task(service.get("/test?duration=0.3"))
    await asyncio.sleep(0.1)
    assert (await service.post(f"/dead-letters/{letter['id']}/replay")).status_code == 503
    assert await service.letters() == [letter]
    await running


async def test_a_letter_can_be_deleted(service: Service) -> None:
    await service.get("/test", headers=ERROR)
    (letter,) = await service.letters()
    assert (await service.delete(f"/dead-letters/{letter['id']}")).status_code == 204
    assert (await service.delete(f"/dead-letters/{letter['id']}")).status_code == 404
    assert await service.letters() == []


async def test_the_latest_letters_come_first_and_all_are_counted(service: Service) -> None:
    for path in ("/test", "/action", "/test"):
        await service.request("POST" if path == "/action" else "GET", path, headers=ERROR)
        await asyncio.sleep(0.002)
    answer = (await service.get("/dead-letters?limit=2")).json()
    assert [letter["name"] for letter in answer["dead_letters"]] == ["background_sleep_task", "long_running_task"]
    assert answer["total"] == 3


async def test_letters_survive_a_restart(new_service: NewService) -> None:
    before = await new_service()
    await before.get("/test", headers=ERROR)
    letters = await before.letters()
    after = await new_service()
    assert await after.letters() == letters
    assert await after.tasks() == []
    assert (await after.post(f"/dead-letters/{letters[0]['id']}/replay")).status_code == 202


async def test_secrets_are_kept_nowhere(
    service: Service, monkeypatch: pytest.MonkeyPatch, segments: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    async def process_data(data: dict[str, object], seconds: float) -> None:
        await asyncio.sleep(seconds)
        message = f"login with {data['nested'][0]['apiKey']} refused"  # type: ignore[index]
        raise ConnectionError(message) from KeyError(data["Card-Secret"])

    monkeypatch.setattr("demo_service.tasks.sleep_tasks.process_data", Job(process_data, Retry()))
    body = {"id": 1, "Card-Secret": "s3cr3t-1", "nested": [{"apiKey": "s3cr3t-2", "plain": "kept"}]}
    await service.post("/process", json=body)
    (letter,) = await service.letters()
    assert letter["arguments"]["data"] == {
        "id": 1,
        "Card-Secret": "[redacted]",
        "nested": [{"apiKey": "[redacted]", "plain": "kept"}],
    }
    assert letter["attempts"] == 3  # a redacted error is retried as the one it stands for
    assert letter["error"]["type"] == "ConnectionError"
    assert letter["error"]["message"] == "login with [redacted] refused"
    told = [
        f"{item.key}={item.val}"
        for segment in segments
        for span in segment.spans  # type: ignore[attr-defined]
        for log in span.logs
        for item in log.items
    ]
    assert any("login with [redacted] refused" in text for text in told)
    everything = "".join([*told, caplog.text, str(letter), str(await service.tasks())])
    assert "s3cr3t" not in everything
    refused = await service.post(f"/dead-letters/{letter['id']}/replay")
    assert refused.status_code == 409
    assert "secret" in refused.json()["detail"]


async def test_huge_arguments_are_not_kept(new_service: NewService) -> None:
    service = await new_service(max_argument_bytes=100)
    await service.post("/process", json={"id": 1, "x": "y" * 100}, headers=ERROR)
    (letter,) = await service.letters()
    assert "more than the 100" in letter["arguments"]["omitted"]
    assert (await service.post(f"/dead-letters/{letter['id']}/replay")).status_code == 409


async def test_a_database_that_is_away_hurts_nobody_and_may_come_back(
    new_service: NewService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "data"
    blocker.write_text("a file where the folder should be")
    service = await new_service(data_dir=blocker)
    assert (await service.get("/test", headers=ERROR)).status_code == 200
    for answer in [await service.get("/dead-letters"), await service.post(f"/dead-letters/{'0' * 32}/replay")]:
        assert answer.status_code == 503
        assert "store of dead letters does not answer" in answer.json()["detail"]
    (line,) = (record for record in caplog.records if "not stored" in record.getMessage())
    (task,) = await service.tasks()
    assert line.__dict__["dead_letter"]["id"] == task["id"]
    assert line.__dict__["dead_letter"]["arguments"] == '{"seconds": 0.0}'
    assert (await service.get("/test")).status_code == 200
    blocker.unlink()
    await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 1


async def not_ready(service: Service) -> str | None:
    """Return why the service is not ready."""
    answer = await service.get("/health/ready")
    return None if answer.status_code == 200 else str(answer.json()["detail"])


async def test_ready_knows_when_letters_cannot_be_stored_and_when_they_can_again(
    new_service: NewService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PROBE_SECONDS", 0)
    blocker = tmp_path / "data"
    blocker.write_text("a file where the folder should be")
    service = await new_service(data_dir=blocker)
    assert "dead letters can't be stored: FileExistsError" in str(await not_ready(service))
    blocker.unlink()
    assert await not_ready(service) is None
    assert (await service.get("/test", headers=ERROR)).status_code == 200
    (tmp_path / "data" / "dead-letters.db").unlink()
    (tmp_path / "data").rmdir()
    blocker.write_text("and again")
    await service.get("/test", headers=ERROR)
    assert (await service.get("/dead-letters")).status_code == 503  # and the letter has been tried to store
    assert "dead letters can't be stored" in str(await not_ready(service))
    blocker.unlink()
    assert await not_ready(service) is None
    await service.get("/test", headers=ERROR)
    assert [letter["name"] for letter in await service.letters()] == ["background_sleep_task"]


async def test_ready_knows_of_a_disk_without_room(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await not_ready(service) is None
    monkeypatch.setattr(letter_file, "MIN_FREE_BYTES", 2**62)
    assert "bytes left" in str(await not_ready(service))


@pytest.mark.parametrize("content", [b"no database at all" * 300, b"half"], ids=["garbage", "header"])
async def test_a_damaged_file_is_moved_aside_with_one_sentence(
    new_service: NewService, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file = tmp_path / "dead-letters.db"
    file.write_bytes(content)
    (tmp_path / "dead-letters.db.broken-20200101T000000").write_text("of an earlier time")
    service = await new_service()
    await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 1
    (aside,) = (name for name in os.listdir(tmp_path) if ".broken-" in name)  # noqa: PTH208  # blocks for no time
    assert (tmp_path / aside).read_bytes() == content
    (line,) = (text for text in caplog.messages if "damaged" in text)
    assert aside in line
    assert "not stored" not in caplog.text


async def test_a_file_that_is_damaged_while_in_use_is_moved_aside(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 3
    file = tmp_path / "dead-letters.db"
    with file.open("r+b") as opened:
        opened.write(b"\0" * file.stat().st_size)
    await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 1
    assert len([text for text in caplog.messages if "damaged" in text]) == 1
    assert await not_ready(service) is None


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_store_that_is_deleted_while_in_use_is_made_anew(
    new_service: NewService, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    folder = tmp_path / "data"
    service = await new_service(data_dir=folder)
    await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 1
    if what == "file":
        (folder / "dead-letters.db").unlink()
    else:
        shutil.rmtree(folder)
    await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 1
    assert len([text for text in caplog.messages if "was deleted while in use" in text]) == 1
    assert "not stored" not in caplog.text


async def test_of_many_letters_the_latest_are_kept(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "TIDY_SECONDS", 0)
    service = await new_service(kept_letters=3)
    for _ in range(5):
        await service.get("/test", headers=ERROR)
        await asyncio.sleep(0.002)
    ids = [task["id"] for task in await service.tasks()]
    assert [letter["id"] for letter in await service.letters()] == ids[:1:-1]
    assert any("dead letters are forgotten: they were beyond the latest 3" in text for text in caplog.messages)


async def test_old_letters_are_forgotten(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "TIDY_SECONDS", 0)
    service = await new_service(letter_days=0.5 / 86_400)
    await service.get("/test", headers=ERROR)
    assert len(await service.letters()) == 1
    await asyncio.sleep(0.6)
    await service.get("/test", headers=ERROR)
    (letter,) = await service.letters()
    assert letter["id"] == (await service.tasks())[1]["id"]
    assert "1 dead letters are forgotten: they were older than" in caplog.text


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows any more, as on a full disk: the limit is the kernel's."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


async def test_a_full_disk_hurts_nobody(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with full_disk():  # not a moment longer: what the tests print may go to a file as well
        for _ in range(20):
            await service.get("/test", headers=ERROR)
        kept = [letter["id"] for letter in await service.letters()]
        unready = str(await not_ready(service))
    lost = [record.__dict__["dead_letter"]["id"] for record in caplog.records if "not stored" in record.getMessage()]
    assert lost
    assert "dead letters can't be stored" in unready
    assert sorted(kept + lost) == sorted(task["id"] for task in await service.tasks())  # each is in one place
