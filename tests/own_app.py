"""A service of somebody else, for `make verify SERVICE_URL=…`: traced by TRACED_BY (library, plugin or nothing)."""

from __future__ import annotations

import asyncio
import os
import threading
import time

TRACED_BY = os.environ["TRACED_BY"]
if TRACED_BY == "plugin":
    from skywalking import agent, config

    config.init()
    agent.start()

from fastapi import BackgroundTasks, FastAPI  # noqa: E402  # the agent's plugin wants to be there first
from skywalking_background import background_span, instrument  # noqa: E402

app = FastAPI()
if TRACED_BY == "library":
    instrument(app)


async def send_mail() -> None:
    await asyncio.sleep(2)


async def fail() -> None:
    raise RuntimeError("no mail server")


def lose_request() -> None:
    time.sleep(0.2)
    with background_span("lost_work"):
        time.sleep(0.1)


@app.get("/up", include_in_schema=False)
async def up() -> str:
    return "ok"


@app.get("/orders")
async def orders(background_tasks: BackgroundTasks) -> str:
    background_tasks.add_task(send_mail)
    return "ok"


@app.get("/orders/{order_id}")
async def order(order_id: int) -> int:
    return order_id


@app.get("/search")
async def search(query: str) -> str:
    return query


@app.get("/failing", include_in_schema=False)
async def failing(background_tasks: BackgroundTasks) -> str:
    background_tasks.add_task(fail)
    return "ok"


@app.get("/losing", include_in_schema=False)
async def losing() -> str:
    threading.Thread(target=lose_request).start()
    return "ok"
