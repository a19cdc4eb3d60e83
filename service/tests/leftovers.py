"""A program: let requests end in every way under a real server, and print what of ours only a collection frees.

The service, its server and the client share one process and one loop. Nothing is sent to an OAP.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from demo_service import app as app_module
from skywalking import config
from skywalking.agent import agent
from skywalking_background import _agent
from skywalking_background._internals import use_context_class
from skywalking_background._segments import Context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI

OURS = ("demo_service", "skywalking_background")
TIMES = 500
SIXTEEN = 16  # clients at once
JSON = "Content-Type: application/json\r\n"


def of_ours(thing: object) -> str | None:
    """Name an object that is an instance of our types, or a frame, a traceback, a coroutine or a function of ours."""
    kind = type(thing)
    if kind.__module__.split(".")[0] in OURS:
        return f"{kind.__module__}.{kind.__qualname__}"
    found: Any = getattr(thing, "tb_frame", thing)
    for attribute in ("f_code", "cr_code", "__code__"):
        code = getattr(found, attribute, None) if not isinstance(found, type) else None
        if code is not None and any(f"/{name}/" in code.co_filename for name in OURS):
            return f"{kind.__name__} of {code.co_qualname}"
    return None


class Client:
    """Sends the same request many times, each on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(self, request: str, body: str = "", headers: str = "", *, leave: bool = False) -> None:
        head = f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n{body}".encode()

        async def some(times: int) -> None:
            for _ in range(times):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(head)
                if leave:
                    await asyncio.sleep(0.02)
                else:
                    answer = await reader.read()
                    assert answer.startswith(b"HTTP/1.1 "), answer
                writer.close()

        await asyncio.gather(*(some(TIMES // SIXTEEN + 1) for _ in range(SIXTEEN)))


def outcomes(client: Client, app: FastAPI) -> dict[str, Callable[[], Awaitable[None]]]:
    """Every way in which a request or its task can end."""
    room, send = app.state.room, client.send

    async def interrupted() -> None:
        await send("GET /test?duration=60")
        await room.close()
        room.draining = False

    async def refused() -> None:
        room.draining = True
        await send("GET /test")
        room.draining = False

    fails = "X-Fault: error\r\n"
    return {
        "succeeded": lambda: send("GET /test"),
        "retried": lambda: send("GET /test", headers="X-Fault: error;times=2\r\n"),
        "dead": lambda: send("GET /test", headers=fails),
        "dead in a thread": lambda: send("GET /test/threading", headers=fails),
        "three dead": lambda: send("POST /complex-action", headers=fails),
        "one dead, two dropped": lambda: send("POST /complex-action?mode=sequential", headers=fails),
        "attempt too long": lambda: send("GET /test", headers="X-Fault: hang\r\n"),
        "interrupted": interrupted,
        "refused": refused,
        "400": lambda: send("POST /process", "{", f"{JSON}Content-Length: 1\r\n"),
        "404": lambda: send("GET /nope"),
        "405": lambda: send("POST /test"),
        "413": lambda: send("POST /process", "x" * 70_000, "Content-Length: 70000\r\n"),
        "422": lambda: send("GET /test?duration=99"),
        "500": lambda: send("GET /broken"),
        "no store": lambda: send("GET /dead-letters?limit=77"),
        "client gone while it waits": lambda: send("GET /test/blocking?duration=0.2", leave=True),
        "client gone in mid-request": lambda: send("POST /process", "{", f"{JSON}Content-Length: 9\r\n", leave=True),
    }


async def count(app: FastAPI, outcome: Callable[[], Awaitable[None]]) -> Counter[str]:
    """Return what of ours a collection frees after an outcome, when all is over."""

    async def once() -> None:
        await outcome()
        while app.state.room._unfinished:  # noqa: ASYNC110  # it has no event for that
            await asyncio.sleep(0.01)
        await app.state.letters.settled()
        await asyncio.sleep(0.3)  # connections are closed, callbacks have run

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await once()
        gc.collect()
        return Counter(name for thing in gc.garbage if (name := of_ours(thing)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def main() -> None:
    app = app_module.create_app()

    @app.get("/broken")
    async def broken() -> None:
        message = "on purpose"
        raise RuntimeError(message)

    read = app.state.letters.read

    async def fail(_connection: object) -> None:
        raise ConnectionError

    async def read_unless_asked(limit: int) -> object:
        if limit == 77:
            await app.state.letters._answer(fail)
        return await read(limit)

    app.state.letters.read = read_unless_asked
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  # nor that
            await asyncio.sleep(0.01)
        found = {}
        for name, outcome in outcomes(Client(listener.getsockname()[1]), app).items():
            found[name] = await count(app, outcome)
        server.should_exit = True
        await serving
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _agent.start = lambda: None
    _agent.tracing = lambda: True
    use_context_class(Context)
    config.agent_profile_active = False
    agent.is_segment_queue_full = lambda: False
    agent.archive_segment = lambda _segment: None
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        logging.basicConfig(stream=nowhere, level=logging.INFO, force=True)  # lines are made, with their stack traces
        app_module.configure_logging = lambda: None
        defaults = {"TASK_SECONDS": "0", "FAULTS_ENABLED": "true", "DATA_DIR": folder, "ATTEMPT_SECONDS": "1"}
        os.environ.update({f"SERVICE_{name}": value for name, value in defaults.items()})
        asyncio.run(main())
