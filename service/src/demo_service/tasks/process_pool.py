"""Processes of the service for work that blocks or computes: a pool that outlives the death of any of them."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING

from skywalking_background import carry
from tracing_claims import variants

from demo_service import ledger
from demo_service.tasks.work import do

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from pathlib import Path

logger = logging.getLogger(__name__)


class ProcessLostError(Exception):
    """The process that did the work was killed, or one beside it: the pool ends all of them."""


class _Pool:
    """The pool of this process; made when it is used for the first time, as its processes cost 0.3 s and 45 MB each."""

    def __init__(self) -> None:
        self.processes = 2
        self.ledger_dir: Path | None = None
        self.executor: ProcessPoolExecutor | None = None


_pool = _Pool()


def configure(processes: int, ledger_dir: Path | None = None) -> None:
    """Say how many processes the pool has, and where they write down what they begin (`ledger`)."""
    _pool.processes, _pool.ledger_dir = processes, ledger_dir


async def run(task: str, seconds: float, work: str, work_id: str | None = None) -> None:
    """Do the work in a process of the pool; its span there is named after the function.

    Raises:
        ProcessLostError: a process of the pool was killed; the next call gets a new pool.
    """
    executor = _pool.executor
    if executor is None:
        executor = _pool.executor = ProcessPoolExecutor(_pool.processes, _context(), _prepare, (_pool.ledger_dir,))
    try:
        # In a thread: it may have to start processes, which takes seconds on a busy machine.
        future = await asyncio.to_thread(executor.submit, carry(do_in_process), task, seconds, work, work_id)
        await asyncio.wrap_future(future)
    except BrokenProcessPool as error:
        if _pool.executor is executor:
            _pool.executor = None
            executor.shutdown(wait=False)
        message = "a process of the pool was killed"
        raise ProcessLostError(message) from error


def do_in_process(task: str, seconds: float, work: str, work_id: str | None) -> None:
    """Do the work; runs in the pool."""
    ledger.note("begun", variants.PROCESS.name, work_id)
    do(task, seconds, work)


def close() -> None:
    """End the pool's processes, whatever they do: the tasks that wait for them have ended."""
    executor, _pool.executor = _pool.executor, None
    if executor is None:
        return
    for process in list((executor._processes or {}).values()):  # noqa: SLF001  # Python 3.14 has `kill_workers`
        with suppress(OSError, ValueError):
            process.terminate()
    executor.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """Fork from a process without threads that has imported what the work needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _prepare(ledger_dir: Path | None) -> None:
    """Prepare a process: it ends with the service, however that ends."""
    ledger.keep(ledger_dir, "pool")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to handle
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    from multiprocessing.connection import wait  # noqa: PLC0415  # only there

    wait([sentinel])
    os._exit(1)
