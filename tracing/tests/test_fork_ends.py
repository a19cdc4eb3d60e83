"""Processes that others were forked from: what they are called, what runs in them first, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from collector import Collector, listening
from skywalking_background import _fork, _ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is called in a child, without the library's own."""
    found: list[Callable[[], None]] = []
    monkeypatch.setattr(_fork, "_begin_anew", found)
    monkeypatch.setattr(_fork, "_pid", os.getpid())
    monkeypatch.setattr(_fork, "_forked", False)
    monkeypatch.setattr(_fork, "_lock", _fork._lock)
    return found


@pytest.fixture
def handled() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)
    _fork._forget_signals()


def test_a_child_is_named_after_its_pid_and_after_the_first_of_its_parents() -> None:
    assert _fork.child_name("main") == f"main-child({os.getpid()})"
    assert _fork.child_name("main-child(7)") == f"main-child({os.getpid()})"
    assert _fork.child_name("a-child(7)-b") == f"a-child(7)-b-child({os.getpid()})"


def test_what_was_given_last_comes_first_and_one_that_fails_keeps_no_other_back(
    hooks: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def fail() -> None:
        raise ValueError("on purpose")

    _fork.in_each_child(lambda: called.append("first"))
    _fork.in_each_child(fail)
    _fork.in_each_child(lambda: called.append("last"))
    _fork._begin_as_told()
    assert called == ["last", "first"]
    (line,) = caplog.records
    assert line.getMessage() == f"process {os.getpid()}, forked from {os.getppid()}, may not report to OAP"
    assert line.exc_info is not None
    assert _fork._is_child()


def test_a_fork_is_noticed_once_and_only_if_there_was_one(hooks: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    hooks.append(lambda: called.append(_fork._pid))
    assert not _fork.notice_fork()
    monkeypatch.setattr(_fork, "_pid", 1)  # as the parent left it
    assert _fork.notice_fork()
    assert not _fork.notice_fork()
    assert called == [os.getpid()]


def test_a_lock_that_a_thread_of_the_parent_held_is_not_waited_for(hooks: list[Any]) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with _fork._lock:
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    _fork._begin_as_told()
    assert not _fork.notice_fork()
    let_go.set()
    thread.join()


def test_ids_begin_anew_where_a_fork_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _ids.new_id()
    for name in ("_numbers", "_process"):
        monkeypatch.setattr(_ids, name, getattr(_ids, name))
    monkeypatch.setattr(_ids, "_pid", 1)
    monkeypatch.setattr(_ids, "notice_fork", _ids._begin)
    after = _ids.new_id()
    assert after[16:] != before[16:]
    assert len(after) == len(before) == 32
    assert abs(int(after[:16], 16) - int(before[:16], 16)) < 3_600e6  # both count in us
    assert _ids.new_id()[16:] == after[16:]


def modules(monkeypatch: pytest.MonkeyPatch, **present: Any) -> None:
    for name in ("multiprocessing.util", "multiprocessing.process", "celery.signals"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, module in present.items():
        monkeypatch.setitem(sys.modules, name.replace("_", "."), module)


def test_a_process_without_a_parent_of_ours_keeps_its_signals(
    hooks: list[Any], handled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules(monkeypatch)
    _fork.deliver_at_the_end(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    modules(monkeypatch, multiprocessing_process=SimpleNamespace(parent_process=lambda: None))
    _fork.deliver_at_the_end(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_child_of_multiprocessing_delivers_after_all_else_that_it_does_at_its_end(
    hooks: list[Any], handled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    finalizers: list[Any] = []
    util = SimpleNamespace(Finalize=lambda *what, exitpriority: finalizers.append((*what, exitpriority)))
    process = SimpleNamespace(parent_process=object)
    modules(monkeypatch, multiprocessing_util=util, multiprocessing_process=process)

    def flush() -> None: ...

    _fork.deliver_at_the_end(flush)
    assert finalizers == [(None, flush, -100)]
    assert callable(signal.getsignal(signal.SIGTERM))


def test_a_process_of_celerys_pool_delivers_when_it_shuts_down(
    hooks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    receivers: list[Any] = []

    class Signal:
        def connect(self, receiver: Any, *, weak: bool, dispatch_uid: str) -> None:
            receivers.append((receiver, weak, dispatch_uid))

    modules(monkeypatch, celery_signals=SimpleNamespace(worker_process_shutdown=Signal()))
    flushed: list[int] = []
    _fork.deliver_at_the_end(lambda: flushed.append(1))
    ((receiver, weak, uid),) = receivers
    receiver(sender=None, pid=1, exitcode=0)
    assert (flushed, weak, uid) == ([1], False, "skywalking_background._fork")


@pytest.mark.parametrize("fails", [False, True])
def test_a_child_that_is_terminated_delivers_and_dies_by_it(
    hooks: list[Any], handled: None, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(_fork, "_forked", True)
    modules(monkeypatch)
    happened: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *what: happened.append(what))

    def flush() -> None:
        happened.append("flush")
        if fails:
            raise ValueError("on purpose")

    _fork.deliver_at_the_end(flush)
    handler: Any = signal.getsignal(signal.SIGTERM)
    if fails:
        with pytest.raises(ValueError, match="on purpose"):
            handler(signal.SIGTERM, None)
    else:
        handler(signal.SIGTERM, None)
    assert happened == ["flush", (os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_apps_own_stays(hooks: list[Any], handled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fork, "_forked", True)
    modules(monkeypatch)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _fork.deliver_at_the_end(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_a_thread_leaves_signals_alone_as_python_wants_it(
    hooks: list[Any], handled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fork, "_forked", True)
    modules(monkeypatch)
    thread = threading.Thread(target=_fork.deliver_at_the_end, args=(lambda: None,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


UNHEARD = """
import multiprocessing, signal, sys, threading, time
import skywalking_background as sw

def tell():
    time.sleep(0.3)  # until the main thread waits in C
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

def work(lock):
    with sw.background_span("work"):
        pass
    if sys.argv[1] == "child of it":
        child = multiprocessing.get_context("fork").Process(target=quick)
        child.start()
        child.join()
    threading.Thread(target=tell).start()
    lock.acquire()

def quick():
    with sw.background_span("quick"):
        pass

sw.start()
context = multiprocessing.get_context("fork")
lock = context.Lock()
lock.acquire()
child = context.Process(target=work, args=(lock,))
child.start()
child.join(20)
print(child.exitcode)
child.kill()
"""


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="Linux says who has sent something over a socket")
@pytest.mark.parametrize(("who", "names"), [("child", ["work"]), ("child of it", ["quick", "work"])])
def test_a_signal_that_another_thread_takes_ends_a_child_that_waits(who: str, names: list[str]) -> None:
    collector = Collector()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {**os.environ, "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"127.0.0.1:{port}", "SW_AGENT_NAME": "shop"}
    with listening(collector, port):
        command = [sys.executable, "-c", UNHEARD, who]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"-{signal.SIGTERM:d}\n"
    assert sorted(span.operationName for segment in collector.segments for span in segment.spans) == names


def test_what_a_child_hears_is_not_its_parents_signal(monkeypatch: pytest.MonkeyPatch, handled: None) -> None:
    passed_on: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda _thread, number: passed_on.append(number))
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    _fork._hear_signals()
    if not (child := os.fork()):
        signal.raise_signal(signal.SIGTERM) if _fork._heard is None else os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert _fork._heard is not None
    os.kill(os.getpid(), signal.SIGCHLD)
    _fork.pass_signals_on()
    assert passed_on == []
    signal.raise_signal(signal.SIGTERM)
    _fork.pass_signals_on()
    assert passed_on == [signal.SIGTERM]
    _fork._forget_signals()
    assert signal.set_wakeup_fd(-1) == -1
