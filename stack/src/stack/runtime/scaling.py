"""That there are more workers now, or fewer, as an event on SkyWalking's timeline: `make up` alone knows both numbers.

Each worker's own start and end are events too, which the workers report themselves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from rich.markup import escape

if TYPE_CHECKING:
    from rich.console import Console

    from stack.settings import Settings

NAME: Final = "Scaled"
_TIMEOUT_SECONDS: Final = 10.0


def is_worker(part: str) -> bool:
    """Say whether a part, or a container's, is a Celery worker."""
    return part == "worker" or part.startswith("worker-")


def tell_scaled(console: Console, settings: Settings, before: int, after: int, began: float) -> None:
    """Say that the number of workers has changed, to the reader and to OAP; never raises.

    Args:
        console: where it is said.
        settings: of the stack.
        before: how many ran; without any the stack has started and not scaled.
        after: how many run now.
        began: when the change began, in seconds since the epoch.
    """
    if not before or before == after:
        return
    import httpx  # noqa: PLC0415  # slow to import, and rarely needed

    console.print(f"Celery workers: {before} → {after}")
    event = {
        "uuid": str(uuid4()),
        "source": {"service": settings.name_of("worker")},
        "name": NAME,
        "type": "Normal",
        "message": f"{before} → {after} Celery workers",
        "parameters": {"workers.before": str(before), "workers.after": str(after)},
        "startTime": round(began * 1000),
        "endTime": round(time.time() * 1000),
        "layer": "GENERAL",
    }
    try:
        url = f"{settings.oap_url}/v3/events"
        httpx.post(url, json=[event], timeout=_TIMEOUT_SECONDS, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        console.print(f"[yellow]OAP did not take the event of it:[/] {escape(str(error)) or type(error).__name__}")
