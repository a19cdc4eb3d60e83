"""The service under test: one endpoint with one sleeping background task, traced as `BENCH_VARIANT` says."""

from __future__ import annotations

import gc
import json
import os
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING

import uvicorn
from variants import create_app, tally

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import Receive, Scope, Send

app = create_app(os.environ["BENCH_VARIANT"])


def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Pass requests on to the app, but for those of the benchmark itself, which no variant sees."""
    if scope.get("path") not in {"/stats", "/collect"}:
        return app(scope, receive, send)
    if scope["path"] == "/collect":
        gc.collect()
    return stats(send)


async def stats(send: Send) -> None:
    """Say how many tasks run now, how many did at the most, and how many spans were made."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(asdict(tally)).encode()})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has ended
    port = int(os.environ["BENCH_PORT"])
    uvicorn.run(serve, host="127.0.0.1", port=port, interface="asgi3", access_log=False, log_level="error")
    print(tally.spans, flush=True)
