"""What `test_fork.py` runs: the same piece of work in processes that were forked by different hands."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time

import skywalking_background as sw

HOW = os.environ.get("FORK_CASE", "")


def piece(number: int) -> tuple[str | None, int]:
    """Do a piece of work; return its trace and the process that did it."""
    with sw.background_span("piece", tags={"number": number}):
        return sw.current_trace_id(), os.getpid()


if HOW == "web":
    from contextlib import asynccontextmanager
    from typing import TYPE_CHECKING

    from fastapi import BackgroundTasks, FastAPI

    if TYPE_CHECKING:
        from collections.abc import AsyncIterator

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        sys.stderr.write(f"COUNTS {os.getpid()} {json.dumps(sw.counts()['segments'])}\n")

    app = sw.instrument(FastAPI(lifespan=lifespan), ignore=["/up"])
    threads_at_import = [thread.name for thread in __import__("threading").enumerate()]

    def short_work() -> None:
        time.sleep(0.001)

    @app.get("/up")
    def up() -> list[str]:
        return threads_at_import

    @app.get("/piece")
    async def answer(tasks: BackgroundTasks) -> int:
        tasks.add_task(short_work)
        return os.getpid()

elif HOW.startswith("celery"):
    if HOW == "celery-worker":
        sw.start()
        with sw.background_span("master"):
            pass  # the master reports, too, before it forks
        sw.flush()
    from celery import Celery

    folder = os.environ["QUEUE_FOLDER"]
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    cel = Celery("pieces", broker="filesystem://", broker_transport_options=options)
    cel.conf.worker_prefetch_multiplier = 25

    @cel.task(name="piece")
    def celery_piece(number: int) -> int:
        with open(f"{folder}/done-{os.getpid()}", "a") as done:  # noqa: PTH123
            done.write(f"{number}\n")
        return number

    if HOW == "celery-client":
        for n in range(int(sys.argv[1])):
            celery_piece.delay(n)

elif HOW == "pool":

    def main() -> None:
        sw.start()
        with sw.background_span("before"):
            pass
        assert sw.flush()
        with sw.background_span("open while it forks"):
            began = time.monotonic()
            with multiprocessing.get_context("fork").Pool(4) as pool:
                done = pool.map(piece, range(int(sys.argv[1])), chunksize=5)
            ended = time.monotonic()
        with sw.background_span("after"):
            pass
        left = time.monotonic()
        assert sw.flush()
        print(json.dumps({"done": done, "counts": sw.counts()["segments"], "flush": time.monotonic() - left}))
        print(ended - began, file=sys.stderr)

    main()

elif HOW == "plain":  # one child; the parent has reported before

    def child(end: str) -> None:
        done = [piece(n) for n in range(10)]
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()
        if end == "flush":
            sw.flush()
            os._exit(0)
        if end == "terminate":
            signal.pause()  # until SIGTERM

    def bare(end: str) -> int:
        if pid := os.fork():
            time.sleep(0.1)
            if end == "terminate":
                os.kill(pid, signal.SIGTERM)
            return os.waitpid(pid, 0)[1]
        child(end)
        sys.exit(0)

    def plain(end: str) -> None:
        sw.start()
        with sw.background_span("before"):
            pass
        sw.flush()
        status: int | None = 0
        if end == "process":
            process = multiprocessing.get_context("fork").Process(target=child, args=(end,))
            process.start()
            process.join()
            status = process.exitcode
        else:
            status = bare(end)
        print(json.dumps(status), flush=True)

    plain(sys.argv[1])
