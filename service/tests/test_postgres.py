"""Dead letters in a real PostgreSQL, where this machine has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from demo_service.tasks import Job, Retry
from harness import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import NewService

BINARIES = [*map(Path, os.environ.get("PATH", "").split(":")), *Path("/usr/lib/postgresql").glob("*/bin")]
BIN = next(((folder / "initdb").resolve().parent for folder in BINARIES if (folder / "initdb").exists()), None)

pytestmark = pytest.mark.skipif(BIN is None, reason="no PostgreSQL on this machine")


class Postgres:
    """A server of the test's own, in a folder that is deleted afterwards."""

    def __init__(self, folder: Path) -> None:
        assert BIN is not None
        self.data = folder / "data"
        self.user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self.user:
            shutil.chown(folder, self.user)
        self.port = free_port()
        self.run("initdb", "--pgdata", str(self.data), "--username", "letters", "--auth", "trust", "--no-sync")
        self.url = f"postgresql+asyncpg://letters@127.0.0.1:{self.port}/postgres"
        self.server: subprocess.Popen[bytes] | None = None

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run([f"{BIN}/{program}", *arguments], user=self.user, cwd="/", check=True, capture_output=True)

    def start(self) -> None:
        command = [f"{BIN}/postgres", "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        self.server = subprocess.Popen(command, user=self.user, cwd="/", stderr=subprocess.DEVNULL)
        ready = [f"{BIN}/pg_isready", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 30
        while subprocess.run(ready, check=False, capture_output=True).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(2)  # at once, without waiting for its clients
            self.server.wait(20)
            self.server = None


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    found = Postgres(folder)
    found.start()
    yield found
    found.stop()
    shutil.rmtree(folder)


async def test_letters_are_kept_replayed_and_deleted(
    new_service: NewService, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long_running_task(seconds: float) -> None:
        message = f"NUL \0 and \ud800 after {seconds} s"
        raise ValueError(message)

    monkeypatch.setattr("demo_service.tasks.sleep_tasks.long_running_task", Job(long_running_task, Retry()))
    service = await new_service(database_url=postgres.url)
    await service.post("/action")
    await service.post("/process", json={"id": 1, "text": "€\x01"}, headers={"X-Fault": "error"})
    process, action = letters = await service.letters()
    assert action["error"]["message"] == "NUL \\0 and \\ud800 after 0.0 s"
    assert process["arguments"]["data"] == {"id": 1, "text": "€\x01"}
    restarted = await new_service(database_url=postgres.url)
    assert await restarted.letters() == letters
    assert (await restarted.post(f"/dead-letters/{process['id']}/replay")).status_code == 202
    assert (await restarted.delete(f"/dead-letters/{action['id']}")).status_code == 204
    assert await service.letters() == []


async def test_a_postgres_that_goes_away_and_comes_back(
    new_service: NewService, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    service = await new_service(database_url=postgres.url)
    assert await service.letters() == []
    postgres.stop()
    assert (await service.get("/test", headers={"X-Fault": "error"})).status_code == 200
    assert (await service.get("/dead-letters")).status_code == 503
    assert "not stored" in caplog.text
    postgres.start()
    await service.get("/test", headers={"X-Fault": "error"})
    assert len(await service.letters()) == 1
