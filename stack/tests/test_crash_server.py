"""The part that lets a fault happen for the console's page: two orders, from one table, one run at a time."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from stack.crash import server as crash_server
from stack.crash.server import Desk, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = """#!/bin/sh
# In the place of a run: it says what it was asked for, and ends when it is told to.
for last; do :; done
echo '{"asked": "'"$*"'", "ended": false, "error": ""}' > "$last"
trap 'exit 130' TERM
while :; do sleep 0.05; done
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    program = tmp_path / "run"
    program.write_text(RUN)
    program.chmod(0o700)
    monkeypatch.setattr(crash_server.sys, "executable", str(program))
    monkeypatch.chdir(tmp_path)  # pytest's folders may be too deep for a socket
    socket = tmp_path.relative_to(tmp_path) / "crash.sock"
    desk = Desk(tmp_path / "page")
    with Server(socket, desk) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://crash") as made:
            yield made
        desk.end()
        server.shutdown()


def run_of(client: httpx.Client) -> dict[str, Any]:
    """Wait until the run has said something."""
    deadline = time.monotonic() + 20
    while (run := client.get("/").json()["run"]) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert isinstance(run, dict)
    return run


def test_it_begins_what_the_table_has_and_ends_it(client: httpx.Client) -> None:
    state = client.get("/").json()
    assert (state["running"], state["run"]) == (False, None)
    assert {one["name"]: one["faults"] for one in state["variants"]}["celery"] == ["kill", "term", "broker"]
    assert {one["name"]: one["faults"] for one in state["variants"]}["threading"] == ["kill", "term"]
    assert client.post("/runs", json={"variant": "celery", "fault": "kill"}).status_code == 202
    asked = run_of(client)["asked"].split()
    assert asked[:-1] == ["-m", "stack", "crash", "--variants", "celery", "--faults", "kill", "--progress"]
    assert client.get("/").json()["running"]
    assert client.post("/runs", json={"variant": "queue", "fault": "kill"}).status_code == 409
    assert client.delete("/runs").status_code == 202
    state = client.get("/").json()
    assert not state["running"]
    assert state["run"]["error"].startswith("the run has ended before its time")
    assert client.delete("/runs").status_code == 409


@pytest.mark.parametrize(
    "order",
    [
        {"variant": "celery", "fault": "kill; rm -rf /"},
        {"variant": "--progress", "fault": "kill"},
        {"variant": "threading", "fault": "broker"},
        {"variant": ["celery"], "fault": "kill"},
        {},
        [],
        "kill",
    ],
)
def test_it_begins_nothing_else(client: httpx.Client, order: object) -> None:
    assert client.post("/runs", json=order).status_code == 422
    assert client.post("/runs", content=b"{").status_code == 422
    assert not client.get("/").json()["running"]
    assert client.post("/", json={"variant": "celery", "fault": "kill"}).status_code == 404
    assert client.get("/runs").status_code == 404


def test_nobody_else_may_open_its_socket(client: httpx.Client) -> None:
    assert client.get("/").status_code == 200
    assert stat.S_IMODE(os.stat("crash.sock").st_mode) == 0o600  # noqa: PTH116


def test_what_it_writes_is_whole_or_not_there(tmp_path: Path) -> None:
    from demo_service.variants import CELERY
    from stack.compare.progress import Progress

    path = tmp_path / "progress.json"
    progress = Progress(path, CELERY, "kill", 200)
    progress.tell(answered=7)
    progress.tell(step="over", ended=True)
    found = json.loads(path.read_text())
    assert (found["answered"], found["ended"], found["requests"], found["lost"]) == (7, True, 200, None)
    assert list(tmp_path.iterdir()) == [path]
