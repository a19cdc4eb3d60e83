"""Processes that others were forked from, and how those end.

`multiprocessing` and Celery's prefork pool end their children by `os._exit`, which runs nothing of `atexit`; a pool's
`terminate` even by SIGTERM, right after the last result. What is finished should still arrive.

Nothing can be done about a bare `os.fork` that ends in `os._exit`, or SIGKILL: up to a second of what was finished is
lost, unless the child calls `flush` before.

A server written in C (uWSGI) may fork without telling Python: `notice_fork` finds that out.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from skywalking_background._faults import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


_AFTER_ALL_OTHERS: Final = -100  # the priority of what runs last
INSTANCE: Final = "{service}@{host}:{pid}"
"""How an instance is named by default: what a person looks for when one of several is ill."""
_NAME_CHARS: Final = 70 - len("-child(4194304)")
_CHILD: Final = re.compile(r"-child\(\d+\)$")
_forked = False
_CREDENTIALS: Final = struct.Struct("3i")  # of a sender: process, user, group
_heard: tuple[socket.socket, socket.socket] | None = None
"""Where it arrives which signals this process has taken, and where it is said."""


_begin_anew: Final[list[Callable[[], None]]] = []
_pid = os.getpid()
_lock = threading.RLock()


def in_each_child(begin_anew: Callable[[], None]) -> None:
    """Call this in every process that is forked from this one, before anything else of ours runs there.

    What was given last is called first.
    """
    _begin_anew.insert(0, begin_anew)


def notice_fork() -> bool:
    """Begin anew if this process was forked and Python was not told; other threads wait until that is done."""
    with _lock:
        forked = os.getpid() != _pid
        if forked:
            _begin()
        return forked


def _begin() -> None:
    global _forked, _pid  # it is about the process
    _forked, _pid = True, os.getpid()
    for begin_anew in _begin_anew:
        try:
            begin_anew()
        except Exception:
            logger.exception("process %d, forked from %d, may not report to OAP", os.getpid(), os.getppid())


def _begin_as_told() -> None:
    global _lock  # noqa: PLW0603  # a thread may have held it that is not here
    _lock = threading.RLock()
    with suppress(ValueError):  # not in the main thread
        _forget_signals()
    _begin()


os.register_at_fork(after_in_child=_begin_as_told)


def instance_name(template: str, service: str) -> str:
    """Name this process as an instance of its service.

    Args:
        template: text with `{service}`, `{host}` and `{pid}`, each of which may be missing.
        service: the service's name.

    Returns:
        The name, in which the host is shortened so that OAP, which cuts names at 70 characters, leaves the process's
        number and that of a child whole.
    """
    host = socket.gethostname().partition(".")[0] or "localhost"

    def filled(host: str) -> str:
        name = template.replace("{service}", service).replace("{pid}", str(os.getpid()))
        return name.replace("{host}", host)

    over = len(filled(host)) - _NAME_CHARS
    return filled(host[: max(len(host) - over, 1)] if over > 0 else host)


def child_name(name: str) -> str:
    """Name the instance of a forked process as the agent does; the child of a child after the first of them."""
    return f"{_CHILD.sub('', name)}-child({os.getpid()})"


def deliver_at_the_end(flush: Callable[[], object]) -> None:
    """Have `flush` called when this process ends, if it is one that others started and will end."""
    if "multiprocessing.util" in sys.modules:
        sys.modules["multiprocessing.util"].Finalize(None, flush, exitpriority=_AFTER_ALL_OTHERS)
    if "celery.signals" in sys.modules:  # its pool's processes run no finalizers
        shutdown = sys.modules["celery.signals"].worker_process_shutdown
        shutdown.connect(lambda **_: flush(), weak=False, dispatch_uid=__name__)
    # Only a child that reports: a handler written in Python waits until the code that runs returns to Python.
    if (
        _is_child()
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):

        def end(number: int, _frame: FrameType | None) -> None:
            signal.signal(number, signal.SIG_DFL)
            try:
                flush()
            finally:
                os.kill(os.getpid(), number)  # and die by it, as before

        signal.signal(signal.SIGTERM, end)
        _hear_signals()


def _hear_signals() -> None:
    """Have the C part of Python's signal handling say when it takes one, which the handler above may never hear of.

    A handler written in Python runs when its main thread gets to it. One that has just begun to wait for a lock of
    `multiprocessing` when the signal comes, or of which another thread takes the signal, does not: a process that was
    told to end would wait for ever, and a pool's `terminate` for it.
    """
    global _heard  # noqa: PLW0603  # it is about the process
    if not hasattr(socket, "SO_PASSCRED"):  # Linux has it
        return
    heard, saying = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.setblocking(False)
    saying.setblocking(False)
    heard.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    before = signal.set_wakeup_fd(saying.fileno(), warn_on_full_buffer=False)
    if before == -1:
        _heard = heard, saying
    else:  # an event loop hears them
        signal.set_wakeup_fd(before)
        heard.close()
        saying.close()


def pass_signals_on() -> None:
    """Send SIGTERM to the main thread, which it wakes, until its handler runs: now and then, from another thread."""
    if _heard is None:
        return
    told = False
    with suppress(OSError):  # nothing more is there
        while True:
            said, who, _, _ = _heard[0].recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
            sender = _CREDENTIALS.unpack(who[0][2])[0] if who else 0
            # A process that was forked from this one says it here too, until it knows that it was.
            told = told or (said[0] == signal.SIGTERM and sender == os.getpid())
    if told and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _forget_signals() -> None:
    """Hear nothing of what the parent heard."""
    global _heard  # noqa: PLW0603  # it is about the process
    if _heard is not None:
        heard, saying = _heard
        _heard = None
        if (now := signal.set_wakeup_fd(-1)) != saying.fileno():
            signal.set_wakeup_fd(now)
        heard.close()
        saying.close()


def _is_child() -> bool:
    process = sys.modules.get("multiprocessing.process")
    return _forked or (process is not None and process.parent_process() is not None)
