"""What `test_servers.py` asks every server for; on anyio, as one of them runs Trio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator  # noqa: TC003  # FastAPI reads it
from pathlib import Path

import anyio
from fastapi import BackgroundTasks, FastAPI, WebSocket
from skywalking_background import background_span, instrument
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, StreamingResponse

app = instrument(FastAPI(), ignore="/up")


async def work(name: str = "inner") -> None:
    await anyio.sleep(0.2)
    with background_span(name):
        pass


def blocking_work() -> None:
    time.sleep(0.1)


async def family() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(work, "one")
        group.start_soon(work, "other")


async def failing_work() -> None:
    await anyio.sleep(0.1)
    raise ValueError("none of the client's business")


async def long_work() -> None:
    await anyio.sleep(60)


@app.get("/up")
async def up() -> None:
    """Answer, unseen."""


@app.get("/tasks")
async def tasks(background: BackgroundTasks) -> str:
    background.add_task(work)
    background.add_task(blocking_work)
    return "ok"


@app.get("/family")
async def relatives(background: BackgroundTasks) -> str:
    background.add_task(family)
    return "ok"


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part"
            await anyio.sleep(0.05)

    return StreamingResponse(parts(), background=BackgroundTask(work))


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(Path(__file__), background=BackgroundTask(work))


@app.get("/failing")
async def failing(background: BackgroundTasks) -> str:
    background.add_task(failing_work)
    return "ok"


@app.get("/long")
async def long(background: BackgroundTasks) -> str:
    background.add_task(long_work)
    return "ok"


@app.get("/endless")
async def endless() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"part"
            await anyio.sleep(0.02)

    return StreamingResponse(parts())


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()
