"""What the console reads of the runs of the runner, and the orders that it gives to it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tracing_console.data import OrderError, Orders, last_crash, last_run

if TYPE_CHECKING:
    from pathlib import Path

SIDE: dict[str, Any] = {
    "setting": "mode=sequential",
    "service": "demo-service-sequential-before",
    "symptom": {"what": "task3 begins late", "value": 6000.0, "unit": "ms", "source": "a metric"},
    "facts": {"orders": "5"},
    "trace_id": "t1",
    "lanes": [{"label": "task1", "trace_id": "t1", "pieces": [{"start": 0, "end": 3.5, "tone": "task"}]}],
}


def note(run_dir: Path, **changed: Any) -> None:
    run = {"name": "sequential", "began_at_ms": 1, "state": "done", "step": "", "pid": os.getpid(), "after": None}
    folder = run_dir / "incidents" / "sequential"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**run, "before": SIDE, **changed}))


def test_a_run_is_read_as_far_as_it_has_come(tmp_path: Path) -> None:
    note(tmp_path, state="running", step="before, with mode=sequential")
    run = last_run(tmp_path, "sequential")
    assert run is not None
    assert (run.state, run.after) == ("running", None)
    assert run.before is not None
    assert run.before.lanes[0].pieces[0].end == 3.5


def test_a_run_whose_process_is_gone_was_cut_short(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note(tmp_path, state="running", pid=gone.pid)
    run = last_run(tmp_path, "sequential")
    assert run is not None
    assert (run.state, run.step) == ("failed", "it was ended before it was through")


@pytest.mark.parametrize(
    "changed", [{"before": {}}, {"state": "lost"}, {"pid": None}, {"before": {**SIDE, "lanes": 1}}]
)
def test_what_is_no_run_is_none(tmp_path: Path, changed: dict[str, Any]) -> None:
    note(tmp_path, **changed)
    assert last_run(tmp_path, "sequential") is None
    assert last_run(tmp_path, "threads") is None
    assert last_run(None, "sequential") is None


def test_a_crash_whose_process_is_gone_was_cut_short(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = {"variant": "celery", "fault": "kill", "requests": 200, "pid": gone.pid, "step": "", "ended": False}
    run |= dict.fromkeys(("accepted", "done", "done_twice", "dead", "open"), 0)
    run |= {"error": "", "refused": None, "lost": None, "shown": None, "traces": []}
    (tmp_path / "compare").mkdir()
    file = tmp_path / "compare" / "progress.json"
    file.write_text(json.dumps(run))
    found = last_crash(tmp_path)
    assert found is not None
    assert (found.ended, found.error) == (True, "it was ended before it was through")
    file.write_text(json.dumps({**run, "fault": "--progress"}))
    assert last_crash(tmp_path) is None
    assert last_crash(None) is None


async def test_one_order_at_a_time_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho "$RUN_DIR $*"\nwhile [ ! -e "$RUN_DIR/go" ]; do sleep 0.05; done\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    orders = Orders(tmp_path)
    await orders.give("incident", "threads")
    assert orders.running == "incident threads"
    with pytest.raises(OrderError, match="“incident threads” still runs"):
        await orders.give("incident", "killed")
    (tmp_path / "go").touch()
    async with asyncio.timeout(20):
        while orders.running:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)
    assert (tmp_path / "log" / "order.log").read_text() == f"{tmp_path} -m stack incident threads\n"


async def test_an_order_is_ended_with_what_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ntrap 'echo ended; exit 130' TERM\necho \"$*\"\nwhile :; do sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    orders, log = Orders(tmp_path), tmp_path / "log" / "order.log"
    orders.end()  # nothing to end
    await orders.give("crash", "--variants", "celery", "--faults", "kill")
    async with asyncio.timeout(20):
        while not log.read_text():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)
        orders.end()
        while orders.running:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert log.read_text() == "-m stack crash --variants celery --faults kill\nended\n"


async def test_an_order_that_can_not_be_given_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Orders(None).possible
    with pytest.raises(OrderError, match="type the command"):
        await Orders(None).give("incident", "threads")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    orders = Orders(tmp_path)
    with pytest.raises(OrderError, match="could not be started"):
        await orders.give("incident", "threads")
    assert orders.running == ""
