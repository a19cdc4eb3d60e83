"""A service with every trouble that an alarm tells of, all at once and once."""

from __future__ import annotations

import time
from contextlib import suppress

from fastapi import FastAPI
from skywalking_background import background_span, instrument, meters

app = instrument(FastAPI())


@app.get("/up")
async def up() -> str:
    return "ok"


@app.post("/trouble")
async def trouble() -> str:
    for _ in range(5):
        with suppress(ValueError), background_span("failing"):
            raise ValueError("on purpose")
    meters.count("dead", "failing")
    meters.count("crashed", "failing")
    with background_span("waiting"):
        meters.waited(9_000)
    for _ in range(200):  # more than SW_AGENT_TRACE_REPORTER_MAX_BUFFER_SIZE, and no time to send any
        with background_span("flood"):
            pass
    time.sleep(1.5)  # noqa: ASYNC251  # what must not be done in a loop
    return "ok"
