"""The journal: what a process that is gone has left open is closed once, and nothing that lives or has ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from collector import Collector, listening
from hypothesis import given
from hypothesis import strategies as st
from skywalking import Component, Layer, config
from skywalking.protocol.common.Common_pb2 import KeyStringValuePair
from skywalking.protocol.language_agent.Tracing_pb2 import Log as SegmentLog
from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection, SegmentObject, SpanObject
from skywalking_background import (
    _faults,
    _journal,
    _meters,
    _observers,
    _records,
    _rescue,
    _running,
    background_span,
    carry,
)
from skywalking_background._journal import Journal
from skywalking_background._lane import Lane
from skywalking_background._observers import Observers
from skywalking_background._reporter import Reporter
from skywalking_background._rescue import Rescue
from skywalking_background._segments import NEW_TRACE, send_what_waits
from skywalking_background.messaging import consumer_span, inject

if TYPE_CHECKING:
    from collections.abc import Iterator

Segments = list[Any]

PROGRAM = """
import os, sys, time
import skywalking_background as sw
from skywalking_background import _journal
_journal.INTERVAL = 0.05
sw.start()
def sleep(): time.sleep(60)
{body}
"""
THREE_TASKS = """
import threading
with sw.background_span("ended before"): time.sleep(0.2)
with sw.background_span("request"):
    works = [sw.carry(sleep, name=f"task {n}") for n in range(3)]
for work in works: threading.Thread(target=work, daemon=True).start()
sleep()
"""


class Oap(Lane):
    """A lane whose segments can be read; it acknowledges what it has when it is told to."""

    def __init__(self, limit: int = 10_000) -> None:
        self.taken: list[SegmentObject] = []
        super().__init__("segments", limit, encode=bytes, send=self.take, describe=str, begin=lambda: True)

    def take(self, batch: list[bytes]) -> None:
        self.taken += SegmentCollection.FromString(b"".join(batch)).segments

    def acknowledge(self) -> list[SegmentObject]:
        while self.step():
            pass
        return self.taken

    @property
    def names(self) -> list[str]:
        return sorted(segment.spans[0].operationName for segment in self.acknowledge())


def running(folder: Path, body: str = THREE_TASKS, **variables: str) -> subprocess.Popen[str]:
    """Start a process that has tasks."""
    environment = {
        **os.environ,
        "SW_AGENT_NAME": config.agent_name,
        "SW_AGENT_INSTANCE_NAME": "first",
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9",
        "SKYWALKING_BACKGROUND_JOURNAL": str(folder),
        **variables,
    }
    program = PROGRAM.format(body=body)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, stderr=subprocess.PIPE, text=True
    )


def read(folder: Path) -> list[_records.Contents]:
    """Read all journals."""
    return [_records.read(path.read_bytes()) for path in folder.glob("*.journal")]


def wait_for(folder: Path, process: subprocess.Popen[str] | None, count: int) -> list[_records.Task]:
    """Wait until so many open tasks are written down."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        tasks = [task for contents in read(folder) for task in contents.tasks.values()]
        if len(tasks) == count:
            return tasks
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    pytest.fail(f"{len(tasks)} tasks are open in {folder}, not {count}")


def kill(process: subprocess.Popen[str]) -> float:
    """End it as the kernel does; return when that was."""
    process.kill()
    when = time.time()
    process.communicate()
    return when


def close_all(folder: Path, oap: Oap | None = None) -> Oap:
    """Do what a process does at its start, until OAP has everything."""
    oap = oap or Oap()
    rescue = Rescue(folder, folder / "own.journal", oap)
    rescue.step()
    while rescue._left:
        oap.acknowledge()
        rescue.step()
    return oap


@pytest.fixture
def journal(tmp_path: Path, segments: Segments) -> Iterator[Journal]:
    """This process's own, without its thread."""
    own = Journal(tmp_path / "journal")
    _running.watch_by((own.watch,), bool)
    yield own
    _running.watch_by((), bool)
    own.forget()
    assert (own.watch.fresh, own.watch.known) == ({}, {})


def noted(doing: str) -> int:
    """Return how often it was noted that something failed; the test expects it."""
    count = _faults.faults().get(doing, 0)
    _faults._seen.clear()
    return count


# What is killed.


def test_what_a_killed_process_has_left_is_closed_where_it_would_have_been(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = running(tmp_path)
    tasks = {task.name: task for task in wait_for(tmp_path, process, 3)}
    killed = kill(process)
    oap = close_all(tmp_path)
    assert oap.names == ["task 0", "task 1", "task 2"]
    for segment in oap.taken:
        (span,) = segment.spans
        task = tasks[span.operationName]
        assert (segment.traceId, segment.traceSegmentId) == (task.trace_id, task.segment_id)
        assert (segment.service, segment.serviceInstance) == (config.agent_name, "first")
        assert (span.spanId, span.parentSpanId, span.isError) == (0, -1, True)
        assert span.startTime == task.start
        assert killed - 10 < span.endTime / 1000 <= killed + 0.01  # 0.25 s before, on a machine with time for it
        assert {tag.key: tag.value for tag in span.tags} == {"task.outcome": "crashed"}
        (reference,) = span.refs
        assert (reference.refType, reference.parentSpanId) == (1, 0)  # CrossThread
        assert (reference.traceId, reference.parentService) == (segment.traceId, config.agent_name)
        assert (reference.parentServiceInstance, reference.parentEndpoint) == ("first", "request")
        (log,) = span.logs
        assert [item.key for item in log.data] == ["event", "error.kind", "message"]
        assert log.data[2].value.startswith(f"process {process.pid} (first) was gone before this ended; last alive 20")
    assert len({segment.spans[0].refs[0].parentTraceSegmentId for segment in oap.taken}) == 1
    assert list(tmp_path.iterdir()) == []
    (record,) = caplog.records
    assert record.getMessage().startswith("3 tasks ended with their processes")
    assert close_all(tmp_path).names == []


def test_what_lives_is_let_alone(tmp_path: Path) -> None:
    process = running(tmp_path)
    wait_for(tmp_path, process, 3)
    assert close_all(tmp_path).names == []
    kill(process)
    assert len(close_all(tmp_path).names) == 3


def test_of_many_who_look_at_once_one_closes(tmp_path: Path) -> None:
    processes = [running(tmp_path), running(tmp_path)]
    wait_for(tmp_path, None, 6)
    for process in processes:
        kill(process)
    oaps = [Oap() for _ in range(8)]
    threads = [threading.Thread(target=close_all, args=(tmp_path, oap)) for oap in oaps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for oap in oaps for name in oap.names) == ["task 0"] * 2 + ["task 1"] * 2 + ["task 2"] * 2


def test_a_sibling_closes_it_too(tmp_path: Path) -> None:
    process = running(tmp_path)
    wait_for(tmp_path, process, 3)
    kill(process)
    sibling = running(tmp_path, "sw.flush(0)\nwith sw.background_span('own'): time.sleep(60)")
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and len(list(tmp_path.glob("*.journal"))) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
    assert close_all(tmp_path).names == []  # the sibling has the lock, until OAP has taken it all
    kill(sibling)
    assert close_all(tmp_path).names == ["own", "task 0", "task 1", "task 2"]  # it died before


def cgroup() -> Path | None:
    """Return a folder for a group of processes with little memory, if this machine lets us make one."""
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        made = root / f"journal-{os.getpid()}"
        limit = "memory.limit_in_bytes" if root.name == "memory" else "memory.max"
        with contextlib.suppress(OSError):
            made.mkdir()
            try:
                (made / limit).write_text(str(150 * 1024 * 1024))
            except OSError:
                made.rmdir()
                continue
            return made
    return None


def test_what_the_kernel_kills_for_want_of_memory_is_closed(tmp_path: Path) -> None:
    group = cgroup()
    if group is None:
        pytest.skip("no memory cgroup can be made here")
    body = THREE_TASKS.rpartition("sleep()")[0]
    body += f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\nx = []\n"
    body += "while True: x.append(os.urandom(1_000_000))\n"
    try:
        process = running(tmp_path / "journal", body)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert close_all(tmp_path / "journal").names == ["task 0", "task 1", "task 2"]
    finally:
        group.rmdir()


def test_a_forked_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    body = """
import threading
def work(name):
    with sw.background_span(name): sleep()
threading.Thread(target=work, args=("the parent's",), daemon=True).start()
time.sleep(1)
if not os.fork():
    work("the child's")
sleep()
"""
    process = running(tmp_path, body)
    tasks = wait_for(tmp_path, None, 2)
    assert sorted(task.name for task in tasks) == ["the child's", "the parent's"]
    headers = [contents.header or {} for contents in read(tmp_path)]
    (child,) = [int(header["pid"]) for header in headers if header["pid"] != process.pid]
    try:
        process.kill()
        process.wait()
        oap = close_all(tmp_path)  # though the child lives, which has inherited the parent's files
        assert [(one.serviceInstance, one.spans[0].operationName) for one in oap.taken] == [("first", "the parent's")]
    finally:
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not oap.names[1:] and time.monotonic() < deadline:
        close_all(tmp_path, oap)
    assert (oap.taken[-1].serviceInstance, oap.names) == (f"first-child({child})", ["the child's", "the parent's"])


def test_a_process_that_ends_as_it_should_leaves_no_file(tmp_path: Path) -> None:
    body = (
        "with sw.background_span('done'): time.sleep(1); assert os.listdir(os.environ['SKYWALKING_BACKGROUND_JOURNAL'])"
    )
    process = running(tmp_path, body)
    assert process.communicate(timeout=60)[1].count("Traceback") == process.returncode == 0
    assert list(tmp_path.iterdir()) == []


# What is written.


def test_only_what_is_open_at_a_look_is_written_and_its_end(journal: Journal) -> None:
    with background_span("short"):
        pass
    journal.look()
    assert read(journal.folder) == []  # not even a file
    with background_span("long", tags={"task.id": 7}):
        journal.look()
        ((task,),) = [contents.tasks.values() for contents in read(journal.folder)]
        assert (task.name, task.tags, task.parent) == ("long", {"task.id": "7"}, None)
    journal.look()
    assert [contents.tasks for contents in read(journal.folder)] == [{}]


def test_an_end_is_written_before_its_segment_leaves(journal: Journal, segments: Segments) -> None:
    open_then: list[int] = []

    class Transport:
        def introduce(self) -> None: ...
        def send_segments(self, _batch: list[bytes]) -> None:
            open_then.append(sum(len(contents.tasks) for contents in read(journal.folder)))

        def send_logs(self, _batch: list[bytes]) -> None: ...
        def close(self) -> None: ...

    reporter = Reporter(Transport())
    reporter.before_segments = journal.before_delivery
    with background_span("long"):
        journal.look()
        assert sum(len(contents.tasks) for contents in read(journal.folder)) == 1
    reporter.segments.put(segments[0])
    assert reporter._round(wanted=True) is None
    assert open_then == [0]


def test_work_that_goes_on_in_another_segment_is_closed_there(journal: Journal, segments: Segments) -> None:
    with background_span("long") as span:
        journal.look()
        first = span._span.context.segment_id
        with background_span("child"):
            pass
        send_what_waits(float("inf"))
        journal.look()
        ((task,),) = [contents.tasks.values() for contents in read(journal.folder)]
        assert (task.segment_id, str(segments[0].segment_id)) == (span._span.context.segment_id, first)
        assert task.segment_id != first
    journal.look()
    assert [contents.tasks for contents in read(journal.folder)] == [{}]


def test_the_file_stays_small_and_keeps_what_is_open(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "COMPACT_BYTES", 20_000)
    with background_span("long"):
        journal.look()
        journal.note_event(next(iter(journal.watch.known)).context.segment_id, "event")
        for _ in range(500):
            carry(journal.look, name="short")()
            assert journal.path.stat().st_size < 25_000
        journal.look()
        (contents,) = read(journal.folder)
        (task,) = contents.tasks.values()
        assert (task.name, task.event, contents.damaged) == ("long", "event", 0)
        assert (contents.header or {})["pid"] == os.getpid()
        other = os.open(journal.path, os.O_RDWR)
        with pytest.raises(BlockingIOError):  # the new file is locked as the old one was
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        assert [path.name for path in journal.folder.iterdir()] == [journal.path.name]


def test_a_file_is_rewritten_when_half_of_it_is_over(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "COMPACT_BYTES", 100)
    with background_span("long", tags={f"key {number}": "x" * 300 for number in range(20)}):
        journal.look()
        first, sizes = journal.path.stat().st_size, []
        for _ in range(100):
            carry(journal.look, name="short")()
            sizes.append(journal.path.stat().st_size)
        assert 1.9 * first < max(sizes) < 2.5 * first


def test_what_there_are_too_many_of_is_not_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_running, "LIMIT", 1)
    with background_span("first"), background_span("second", parent=NEW_TRACE):
        journal.look()
        assert [task.name for contents in read(journal.folder) for task in contents.tasks.values()] == ["first"]
    assert [record.getMessage() for record in caplog.records] == [
        "1 tasks run, more are not watched for the journal (number 1)"
    ]


def test_a_file_that_is_full_takes_ends_but_no_begins(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_journal, "COMPACT_BYTES", 300)
    monkeypatch.setattr(_journal, "JOURNAL_BYTES", 300)
    monkeypatch.setattr(_journal, "RETRY", 0.0)
    with background_span("first", tags={"much": "x" * 300}):
        journal.look()
        for _ in range(3):
            carry(journal.look, name="more")()
        assert [task.name for contents in read(journal.folder) for task in contents.tasks.values()] == ["first"]
    journal.look()
    carry(journal.look, name="there is room again")()
    assert journal.missed == 3
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{journal.path} has reached its limit of ")


def test_a_file_that_somebody_has_removed_is_written_again(journal: Journal) -> None:
    with background_span("long"):
        journal.look()
        journal.path.unlink()
        journal.look()
        journal.look()
        assert [task.name for contents in read(journal.folder) for task in contents.tasks.values()] == ["long"]
    journal.look()
    assert [contents.tasks for contents in read(journal.folder)] == [{}]


def test_a_thread_of_its_own_looks_again_and_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "INTERVAL", 0.001)
    rounds = threading.Semaphore(0)
    journal.on_round = rounds.release
    before = set(threading.enumerate())
    journal.start()
    journal.start()
    (thread,) = set(threading.enumerate()) - before
    assert (thread.name, thread.daemon) == ("skywalking-background-journal", True)
    for _ in range(3):
        assert rounds.acquire(timeout=10)
    monkeypatch.setattr(_journal, "INTERVAL", 3_600)


def test_at_the_end_of_the_process_a_file_stays_only_for_what_is_open(journal: Journal) -> None:
    journal.close()
    assert not journal.folder.exists()
    with background_span("long"):
        journal.look()
        journal.close()
        assert [len(contents.tasks) for contents in read(journal.folder)] == [1]
    journal.close()
    assert list(journal.folder.iterdir()) == []
    journal.close()


def test_the_end_does_not_wait_for_a_disk_that_hangs(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "WRITE_WAIT_SECONDS", 0.01)
    with background_span("long"):
        journal.look()
    with journal._writing:
        journal.close()
        journal.before_delivery()
    assert journal.path.exists()
    journal.close()
    assert not journal.path.exists()


def test_an_end_that_can_not_be_written_is_noted(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with background_span("long"):
        journal.look()

    def fail() -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write", fail)
        journal.before_delivery()
        assert noted("writing the journal") == 1
        journal.close()
        assert noted("closing the journal") == 1
        journal.look()
        assert noted("writing the journal") == 1
    journal.close()


@pytest.mark.parametrize(("seconds", "synced"), [(0.0, 2), (1e9, 0), (None, 0)])
def test_what_was_written_is_with_the_disk_when_the_setting_says(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, seconds: float | None, synced: int
) -> None:
    files: list[int] = []
    monkeypatch.setattr(os, "fsync", files.append)
    monkeypatch.setattr(_journal, "JOURNAL_FSYNC_SECONDS", seconds)
    with background_span("long"):
        for _ in range(3):
            journal.look()
    for _ in range(3):
        journal.look()
    assert files == [journal._file] * synced


def test_the_folder_is_made_and_the_file_says_whose_it_is(tmp_path: Path, segments: Segments) -> None:
    journal = Journal(tmp_path / "a" / "b")
    assert journal._synced == journal._try_again == 0
    _running.watch_by((journal.watch,), bool)
    with background_span("long"):
        journal.look()
        ((contents, size),) = [(_records.read(path.read_bytes()), path.stat()) for path in journal.folder.iterdir()]
    _running.watch_by((), bool)
    assert contents.header == {
        "journal": 1,
        "service": config.agent_name,
        "instance": config.agent_instance_name,
        "pid": os.getpid(),
    }
    assert (size.st_size, size.st_mode & 0o777, contents.damaged) == (journal._size, 0o600, 0)
    journal.path.unlink()  # by somebody else
    journal.close()
    assert not journal.watch.known


# What is torn or full.


@pytest.mark.parametrize("truncates", [True, False])
def test_a_line_that_was_written_in_part_spoils_no_other(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, truncates: bool
) -> None:
    monkeypatch.setattr(_journal, "RETRY", 0.0)
    write, truncate = os.write, os.ftruncate

    def written_in_part(file: int, data: bytes) -> int:
        if len(data) <= 10:
            raise OSError
        return write(file, data[:10])

    def failing(file: int, size: int) -> None:
        if not truncates:
            raise OSError
        truncate(file, size)

    with background_span("first"):
        journal.look()
        with background_span("second", parent=NEW_TRACE):
            with monkeypatch.context() as patch:
                for _ in range(2):
                    patch.setattr(os, "write", lambda file, data: written_in_part(file, data[:20]))
                    patch.setattr(os, "ftruncate", failing)
                    journal.look()
            assert noted("writing the journal") == 2
            journal.look()
            (contents,) = read(journal.folder)
            assert sorted(task.name for task in contents.tasks.values()) == ["first", "second"]
            assert bool(contents.damaged) == (not truncates)
            if truncates:
                assert journal.path.read_bytes().count(b"\n") == 3
    journal.look()
    (contents,) = read(journal.folder)
    assert contents.tasks == {}
    assert b"\n\n" not in journal.path.read_bytes()


def test_a_file_that_can_not_be_rewritten_grows_on(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_journal, "COMPACT_BYTES", 1_000)
    with background_span("long"):
        journal.look()
        replace, tried = journal._replace, []

        def fail(tasks: Any) -> None:
            tried.append(journal._size)
            raise OSError

        journal._replace = fail  # type: ignore[method-assign]
        for _ in range(50):
            carry(journal.look, name="short")()
        assert 1_000 <= tried[0] <= tried[1] / 2
        assert noted("rewriting the journal") == len(tried)
        journal._replace = replace  # type: ignore[method-assign]
        before = journal.path.stat().st_size
        for _ in range(100):
            carry(journal.look, name="short")()
        assert journal.path.stat().st_size < before
        (contents,) = read(journal.folder)
        assert ("long" in {task.name for task in contents.tasks.values()}, contents.damaged) == (True, 0)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a small file system of its own."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_noted_and_the_journal_goes_on_when_there_is_room(
    tmp_path: Path,
    journal: Journal,
    segments: Segments,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_journal, "RETRY", 0.0)
    with mounted(journal.folder, "size=16k"):
        with background_span("before"):
            journal.look()
            filler = journal.folder / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 512)
            with background_span("in vain", parent=None, tags={"much": "x" * 300}):
                pass
            for _ in range(40):
                carry(journal.look, name="meanwhile" + "x" * 400)()
            assert noted("writing the journal") > 0
            (contents,) = read(journal.folder)
            assert contents.damaged == 0
            assert "before" in {task.name for task in contents.tasks.values()}
            filler.unlink()
            carry(journal.look, name="after")()
        journal.look()
        assert [(contents.tasks, contents.damaged) for contents in read(journal.folder)] == [({}, 0)]
        journal.forget()
    lines = [record for record in caplog.records if "writing the journal" in record.getMessage()]
    assert 1 <= len(lines) <= 2  # the 1st, the 10th
    assert len(segments) == 42  # whose tasks had no part in it


def test_a_disk_that_is_full_from_the_start_is_noted_and_the_tasks_go_on(journal: Journal, segments: Segments) -> None:
    with mounted(journal.folder, "size=4k,nr_inodes=1"):
        with background_span("task"):
            journal.look()
            journal.look()
        assert noted("writing the journal") == 1
        assert len(segments) == 1


def test_a_folder_that_can_be_read_only_is_noted_and_nothing_in_it_is_closed(
    tmp_path: Path, journal: Journal, segments: Segments
) -> None:
    with mounted(journal.folder, "size=64k"):
        process = running(journal.folder)
        wait_for(journal.folder, process, 3)
        kill(process)
        subprocess.run(["mount", "-o", "remount,ro", str(journal.folder)], check=True)
        with background_span("task"):
            journal.look()
        assert noted("writing the journal") == 1
        assert len(segments) == 1
        assert close_all(journal.folder).names == []  # it would be closed at each start
        assert noted("closing what other processes have left") == 1
        subprocess.run(["mount", "-o", "remount,rw", str(journal.folder)], check=True)
        assert len(close_all(journal.folder).names) == 3


def test_a_file_that_can_not_be_begun_leaves_nothing_open(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[int] = []

    def fail(file: int, _how: int) -> None:
        files.append(file)
        journal.path.with_suffix(".new").unlink()  # as one who tidies up may do
        raise OSError

    monkeypatch.setattr(fcntl, "flock", fail)
    with background_span("task"):
        journal.look()
    assert noted("writing the journal") == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(files[0])
    assert list(journal.folder.iterdir()) == []


def test_a_folder_that_is_none_is_noted(tmp_path: Path, segments: Segments) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "journal")
    _running.watch_by((journal.watch,), bool)
    with background_span("task"):
        journal.look()
    _running.watch_by((), bool)
    assert noted("writing the journal") == 1
    assert len(segments) == 1


TASK = _records.Task("s", "t", "name", 1, None, {})
LINES = [
    _records.header("service", "instance", 1),
    *(
        _records.Task(
            f"s{number}",
            "t",
            f"näme {number}",
            number,
            _records.Reference("CrossThread", "t", "p", 1, "s", "i", "e", None),
            {"a": "b\n\0"},
        ).line()
        for number in range(6)
    ),
    _records.ended("s0"),
    _records.moved("s1", "s7"),
    _records.ended("s7"),
    _records.moved("s2", "s8"),
    _records.event("s3", "e3"),
]

HEADER = _records.read(LINES[0]).header
REFERENCE = _records.Reference("CrossProcess", "t", "p", 3, "shop", "one", "HTTP GET /", "10.0.0.1:80")


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        _records.Task("s", "t", "n\u00e4me", 1, REFERENCE, {"a": "b", "c": "d"}, "e", ("Entry", 3, 52, "rabbit:5672")),
        _records.Task("s", "t", "name", 1, _records.Reference("CrossThread", "t", "p", 0, "s", "i", "e", None), {}),
    ],
)
def test_what_is_written_of_a_task_is_read_again(task: _records.Task) -> None:
    found = _records.read(_records.header("shop", "one", 7) + task.line())
    assert (found.tasks, found.damaged) == ({"s": task}, 0)
    assert found.header == {"journal": 1, "service": "shop", "instance": "one", "pid": 7}


def test_all_that_its_segment_would_need_is_taken_down_of_a_task(journal: Journal, segments: Segments) -> None:
    headers: dict[str, str] = {}
    with background_span("client"):
        inject(headers)
    with consumer_span("orders", headers, queue="films", broker="amqp://rabbit", tags={"task.id": "7"}) as work:
        journal.look()
        ((task,),) = [contents.tasks.values() for contents in read(journal.folder)]
        open_span: Any = work._span
        open_span.refs.insert(0, REFERENCE)
        open_span.tags["empty"] = []
        again = _records.describe(open_span)
    client, span = segments[0].spans[0], segments[1].spans[0]
    parent = ("CrossProcess", str(segments[0].related_traces[0]), segments[0].segment_id, client.sid)
    where = (config.agent_name, config.agent_instance_name, "client", "rabbit:5672")
    sort = ("Entry", int(Layer.MQ.value), int(Component.RabbitmqConsumer.value), "rabbit:5672")
    found = {tag.key: tag.val for tag in span.iter_tags()}
    assert found["task.id"] == "7"
    assert task == _records.Task(
        segments[1].segment_id,
        parent[1],
        "orders",
        span.start_time,
        _records.Reference(*parent, *where),
        found,
        sort=sort,
    )
    assert (again.parent, again.tags["empty"]) == (REFERENCE, "")


@given(st.data())
def test_a_torn_tail_costs_what_is_in_it_and_nothing_else(data: st.DataObject) -> None:
    whole = b"".join(LINES)
    cut = data.draw(st.integers(0, len(whole)))
    rest = data.draw(st.one_of(st.just(b""), st.binary(max_size=60), st.integers(1, 200).map(bytes)))
    found = _records.read(whole[:cut] + rest)
    count = whole[:cut].count(b"\n")
    if whole[cut : cut + 1] == b"\n" and rest[:1] in {b"", b"\n"}:
        count += 1  # all of a line, but for its end
    expected = {f"s{number}" for number in range(6) if count > number + 1}
    if count > 7:
        expected -= {"s0"}
    if count > 8:
        expected = expected - {"s1"} | {"s7"}
    if count > 9:
        expected -= {"s7"}
    if count > 10:
        expected = expected - {"s2"} | {"s8"}
    assert set(found.tasks) == expected
    assert bool(found.header) == (count > 0)
    for task in found.tasks.values():
        assert task.name.startswith("näme")
        assert task.tags == {"a": "b\n\0"}


@given(st.integers(0, len(b"".join(LINES)) - 1), st.integers(1, 255))
def test_a_damaged_byte_costs_its_line_and_changes_nothing(place: int, bits: int) -> None:
    data = bytearray(b"".join(LINES))
    data[place] ^= bits
    found = _records.read(bytes(data))
    assert found.damaged >= (data[place] ^ bits != ord("\n"))
    assert (found.header or HEADER) == HEADER
    assert len(found.tasks) >= 2  # of 4: a line that has lost its end takes the next one along
    for task in found.tasks.values():
        assert (task.name, task.tags) == (f"näme {task.start}", {"a": "b\n\0"})


def test_a_loss_of_power_costs_the_last_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = running(tmp_path)
    wait_for(tmp_path, process, 3)
    kill(process)
    (path,) = tmp_path.glob("*.journal")
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    begun = [number for number, line in enumerate(lines) if b'"task 2"' in line]
    path.write_bytes(b"".join(lines[: begun[0]]) + lines[begun[0]][:100] + bytes(300))
    closed = close_all(tmp_path).names
    assert set(closed) >= {"task 0", "task 1"}
    assert "task 2" not in closed
    assert "1 lines of their journals can't be read" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_its_first_line_is_kept_for_people(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.journal").write_bytes(b"garbage\n" + TASK.line())
    assert close_all(tmp_path).names == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.damaged"]
    (said,) = caplog.records
    assert said.getMessage() == f"the journal {tmp_path}/a.journal can't be read, it is kept as a.damaged"


# What closes.


def left(folder: Path, *tasks: _records.Task, service: str | None = None) -> Path:
    """Leave a journal as a process does that is gone."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(list(folder.iterdir()))}.journal"
    lines = [_records.header(config.agent_name if service is None else service, "gone", 7)]
    path.write_bytes(b"".join(lines + [task.line() for task in tasks]))
    return path


def many(count: int) -> list[_records.Task]:
    return [_records.Task(f"s{number}", "t", f"task {number}", 1, None, {}) for number in range(count)]


def test_a_file_stays_until_oap_has_all_of_it(tmp_path: Path) -> None:
    path = left(tmp_path, *many(3))
    oap = Oap()
    first = Rescue(tmp_path, tmp_path / "own.journal", oap)
    first.step()
    first.step()
    assert path.exists()
    first.forget()  # it dies before OAP is back
    assert close_all(tmp_path).names == ["task 0", "task 1", "task 2"]
    assert not path.exists()


def test_a_process_that_reports_nothing_closes_it_too(tmp_path: Path) -> None:
    path = left(tmp_path, *many(3))
    collector = Collector()
    with listening(collector, 0) as port:
        process = running(tmp_path, "sleep()", SW_AGENT_COLLECTOR_BACKEND_SERVICES=f"127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + 40
            while path.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            kill(process)
    names = sorted(segment.spans[0].operationName for segment in collector.segments)
    assert names == ["task 0", "task 1", "task 2"]


def test_a_process_has_no_thread_while_there_is_nothing_to_close(tmp_path: Path) -> None:
    living = left(tmp_path, *many(1))
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = running(tmp_path, "import threading; sys.exit(threading.active_count())")
        process.communicate(timeout=40)
    assert process.returncode == 1
    process = running(tmp_path, "import threading; sys.exit(threading.active_count())")
    process.communicate(timeout=40)
    assert process.returncode == 2  # the one that will close it


def test_more_than_there_is_room_for_is_closed_bit_by_bit(tmp_path: Path) -> None:
    left(tmp_path, *many(2_300))
    oap = Oap(limit=1_000)
    rescue = Rescue(tmp_path, tmp_path / "own.journal", oap)
    for _ in range(20):
        rescue.step()
        assert oap.counts.queued <= 500
        oap.acknowledge()
    assert len({segment.traceSegmentId for segment in oap.taken}) == len(oap.taken) == 2_300
    assert oap.counts.dropped == 0
    assert list(tmp_path.iterdir()) == []


def test_another_services_file_is_its_own(tmp_path: Path) -> None:
    path = left(tmp_path, *many(1), service="another")
    assert close_all(tmp_path).names == []
    assert path.exists()


def test_a_file_without_open_tasks_goes_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left(tmp_path)
    assert close_all(tmp_path).names == []
    assert (list(tmp_path.iterdir()), caplog.records) == ([], [])


def test_a_clock_that_was_put_back_ends_nothing_before_its_begin(tmp_path: Path) -> None:
    start = int(time.time() * 1000) + 3_600_000
    left(tmp_path, _records.Task("s", "t", "task", start, None, {}))
    (segment,) = close_all(tmp_path).acknowledge()
    assert segment.spans[0].startTime == segment.spans[0].endTime == start


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is counted, and what is put on the timeline."""
    found: list[Any] = []
    monkeypatch.setattr(_meters, "count", lambda *what: found.append(what))
    monkeypatch.setattr(_rescue, "event", lambda *what, failed: found.append((*what, failed)))
    return found


def test_a_task_is_closed_with_all_that_is_known_of_it(
    tmp_path: Path, crashes: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    parent = _records.Reference("CrossProcess", "t", "p", 3, "shop", "one", "HTTP GET /", "10.0.0.1:80")
    sort = ("Entry", int(Layer.MQ.value), int(Component.RabbitmqConsumer.value), "rabbit:5672")
    tasks = [
        _records.Task("s1", "t", "resize", 1_000, parent, {"task.id": "7"}, sort=sort),
        _records.Task("s2", "t", "mail", 1_000, None, {}),
    ]
    for task in tasks:
        os.utime(left(tmp_path, task), (2.5, 2.5))
    told: list[_rescue.Lost] = []
    oap = Oap()
    rescue = Rescue(tmp_path, tmp_path / "own.journal", oap, told.append)
    for _ in range(6):
        rescue.step()
        oap.acknowledge()
    where = "7 (gone, last alive 1970-01-01T00:00:02.500Z)"
    message = "process 7 (gone) was gone before this ended; last alive 1970-01-01T00:00:02.500Z"
    error = [("event", "error"), ("error.kind", "Crashed"), ("message", message)]
    first, second = oap.taken
    span = SpanObject(
        parentSpanId=-1,
        startTime=1_000,
        endTime=2_500,
        operationName="resize",
        peer="rabbit:5672",
        spanType="Entry",
        spanLayer="MQ",
        componentId=Component.RabbitmqConsumer.value,
        isError=True,
        tags=[pair("task.id", "7"), pair("task.outcome", "crashed")],
        logs=[SegmentLog(time=2_500, data=[pair(*one) for one in error])],
    )
    span.refs.add(
        refType="CrossProcess",
        traceId="t",
        parentTraceSegmentId="p",
        parentSpanId=3,
        parentService="shop",
        parentServiceInstance="one",
        parentEndpoint="HTTP GET /",
        networkAddressUsedAtPeer="10.0.0.1:80",
    )
    assert first == SegmentObject(
        traceId="t", traceSegmentId="s1", service=config.agent_name, serviceInstance="gone", spans=[span]
    )
    assert (second.traceSegmentId, second.spans[0].operationName, len(second.spans[0].refs)) == ("s2", "mail", 0)
    assert told[0] == _rescue.Lost(tasks[0], config.agent_name, "gone", 2_500, message)
    said = f"2 tasks ended with their processes: {where}, {where}"
    counted = [("crashed", "resize", 1), ("crashed", "mail", 1)]
    assert crashes == [("CrashFound", said, True), *counted]
    closed = "ended with their processes, each of which is closed as crashed in its trace"
    assert [record.getMessage() for record in caplog.records] == [f"2 tasks {closed}: {where}, {where}"]
    assert list(tmp_path.iterdir()) == []


def test_one_that_can_not_be_closed_keeps_no_other_open(tmp_path: Path, crashes: list[Any]) -> None:
    bad = _records.Task("s", "t", "bad", 1, None, {}, sort=("Nothing", 0, 0, ""))
    left(tmp_path, bad, *many(1))
    assert close_all(tmp_path).names == ["task 0"]
    assert noted("closing a task that another process has left") == 1


def test_a_file_that_can_not_be_taken_keeps_no_other_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: list[Any]
) -> None:
    left(tmp_path, *many(1))
    os.utime(left(tmp_path, *many(2)), (1, 1))
    first = min(tmp_path.iterdir())
    take = _rescue._lock_and_read

    def failing(path: Path, file: int) -> Any:
        if path == first:
            raise ZeroDivisionError
        return take(path, file)

    monkeypatch.setattr(_rescue, "_lock_and_read", failing)
    assert close_all(tmp_path).names == ["task 0", "task 1"]
    assert noted("reading what another process has left") == 1
    assert first.exists()


def test_a_file_that_vanishes_meanwhile_is_nobodys_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crashes: list[Any]
) -> None:
    path = left(tmp_path, *many(1))
    rescue = Rescue(tmp_path, tmp_path / "own.journal", oap := Oap())
    rescue.step()
    oap.acknowledge()
    path.unlink()
    rescue.step()
    rescue.step()
    assert not rescue._left
    (tmp_path / "gone.journal").symlink_to(tmp_path / "nowhere")
    assert close_all(tmp_path).names == []


def pair(key: str, value: str) -> KeyStringValuePair:
    return KeyStringValuePair(key=key, value=value)


def test_who_is_told_of_the_lost_knows_their_events(tmp_path: Path) -> None:
    left(tmp_path, _records.Task("s", "t", "task", 1, None, {"task.id": "7"}, "e"))
    told: list[_rescue.Lost] = []
    rescue = Rescue(tmp_path, tmp_path / "own.journal", Oap(), told.append)
    rescue.step()
    rescue.forget()
    ((task, instance),) = [(one.task, one.instance) for one in told]
    assert (task.event, task.tags, instance) == ("e", {"task.id": "7"}, "gone")


def test_whether_a_process_has_left_something_is_asked_without_taking_it(tmp_path: Path) -> None:
    rescue = Rescue(tmp_path, tmp_path / "own.journal", Oap())
    for name in ("own.journal", "other.txt"):
        (tmp_path / name).write_bytes(b"")
    assert not rescue.finds()
    path = left(tmp_path, *many(1))
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not rescue.finds()
    assert rescue.finds()
    with path.open("rb") as file:  # nobody holds it
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    monkey = path.with_name("gone.journal")
    monkey.symlink_to(tmp_path / "nowhere")
    path.unlink()
    assert not rescue.finds()  # removed since the folder was read


def test_what_was_never_finished_is_removed_when_it_is_old(tmp_path: Path) -> None:
    for name, age in (("old", 61), ("new", 30)):
        (tmp_path / f"{name}.new").write_bytes(b"x")
        os.utime(tmp_path / f"{name}.new", (time.time() - age,) * 2)
    (tmp_path / "gone.new").symlink_to(tmp_path / "nowhere")
    close_all(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone.new", "new.new"]


# Who looks, as the settings say.


@pytest.fixture
def observers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Observers]:
    """Those of a process with all that can be switched on; what they are asked for is in `asked`."""
    monkeypatch.setenv("SKYWALKING_BACKGROUND_JOURNAL", f" {tmp_path} ")
    monkeypatch.setattr(_observers, "START_REPORT_SECONDS", 2.0)
    monkeypatch.setattr(_observers, "EVENT_SECONDS", 60.0)
    monkeypatch.setattr(config, "agent_log_reporter_active", True)
    made = Observers(Oap(), Oap(), lambda _batch: None)
    yield made
    made.forget()


def test_each_observer_does_its_part(tmp_path: Path, observers: Observers, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, events, journal, rescue = observers.lines, observers.events, observers.journal, observers.rescue
    assert lines is not None
    assert events is not None
    assert journal is not None
    assert rescue is not None
    assert observers.watches == (lines.watch, events.watch, journal.watch)
    assert (lines._after, events._after) == (2.0, 60.0)
    assert (journal.folder, rescue.folder, rescue.own) == (tmp_path, tmp_path, journal.path)
    assert (journal.on_round, events._on_begin) == (rescue.step, journal.note_event)
    asked: list[str] = []
    for who, names in ((lines, ["look"]), (events, ["look"]), (journal, ["start", "before_delivery", "close"])):
        for name in names:
            monkeypatch.setattr(who, name, lambda who=who, name=name: asked.append(f"{type(who).__name__}.{name}"))
    for do in (observers.look, observers.start, observers.before_delivery, observers.close):
        do()
    assert asked[:2] == ["StartReports.look", "RunningEvents.look"]
    assert asked[2:] == ["Journal.start", "Journal.before_delivery", "Journal.close"]
    assert not observers.finds_lost()
    left(tmp_path, _records.Task("s", "t", "task", 1, None, {}, "e"))
    assert observers.finds_lost()
    rescue.step()
    assert [event.id for event in events._ended] == ["e"]
    monkeypatch.setattr(journal, "start", None)
    observers.start()
    assert noted("starting the journal") == 1


def test_a_forked_child_lets_go_of_all_that_is_its_parents(tmp_path: Path, observers: Observers) -> None:
    _running.watch_by(observers.watches, bool)
    with background_span("long"):
        observers.journal.look()  # type: ignore[union-attr]
        left(tmp_path, *many(1))
        observers.rescue.step()  # type: ignore[union-attr]
        observers.forget()
    assert (_running._watches, observers.journal._file, list(observers.rescue._left)) == ((), -1, [])  # type: ignore[union-attr]


def test_without_settings_nobody_looks(monkeypatch: pytest.MonkeyPatch, segments: Segments) -> None:
    monkeypatch.setenv("SKYWALKING_BACKGROUND_JOURNAL", " ")
    monkeypatch.setattr(_observers, "START_REPORT_SECONDS", None)
    for seconds, send in ((None, bool), (60.0, None)):
        monkeypatch.setattr(_observers, "EVENT_SECONDS", seconds)
        none = Observers(Oap(), Oap(), send)
        assert none.watches == ()
        assert not none.finds_lost()
        for do in (none.look, none.start, none.before_delivery, none.close, none.forget):
            do()
