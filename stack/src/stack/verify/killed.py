"""What `make verify` shows of a service that is killed: its tasks become dead letters and crashed spans."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from stack.verify.small_service import empty_folder, kill_with_workers, service_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from oap_query import Oap

    from stack.settings import Settings

TASKS: Final = 200
TASK_SECONDS: Final = 60
KILLED_AFTER_SECONDS: Final = 10
PROMISED_SECONDS: Final = 5.0
"""So long after the service answers again all of it is to be seen, on a machine with time for it."""
TIMEOUT_SECONDS: Final = 60.0
_CRASHED: Final = """query ($condition: TraceQueryCondition) { data: queryBasicTraces(condition: $condition) {
    traces { traceIds } } }"""
_CRASHED_WHOLE: Final = """query ($condition: TraceQueryCondition) { data: queryTraces(condition: $condition) {
    traces { spans { traceId } } } }"""


def check_killed(settings: Settings, oap: Oap) -> Iterator[tuple[bool, str]]:
    """Kill a service of our own that runs tasks, start it again, and count what is left of them."""
    folder = empty_folder(settings, "verify-killed")
    variables = {"SERVICE_JOURNAL": "written", "SERVICE_MAX_RUNNING": "1000"}
    began = datetime.now(UTC)
    with service_beside(settings, "killed", folder, variables) as (process, client):
        trace_ids = set(_ask(client))
        time.sleep(KILLED_AFTER_SECONDS)
        kill_with_workers(process)
    with service_beside(settings, "killed", folder, variables) as (_process, client):
        back = time.monotonic()
        letters, letters_after = _when_all(lambda: len(_letters(client) & trace_ids), back)
        traces, traces_after = _when_all(lambda: len(_crashed(settings, oap, began) & trace_ids), back)
    promised = f"promised: {PROMISED_SECONDS:.0f} s"
    yield letters == TASKS, f"{letters} of {TASKS} are dead letters {letters_after:.1f} s after the restart"
    yield traces == TASKS, f"{traces} of {TASKS} traces have a crashed span {traces_after:.1f} s after it ({promised})"


def _ask(client: httpx.Client) -> list[str]:
    def ask(_number: int) -> str:
        response = client.get(f"/test?duration={TASK_SECONDS}").raise_for_status()
        trace_id: str = response.headers["X-Trace-Id"]
        return trace_id

    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(ask, range(TASKS)))


def _when_all(count: Callable[[], int], since: float) -> tuple[int, float]:
    """Count until it is all of them; return how many there are, and after how many seconds."""
    while (found := count()) < TASKS and time.monotonic() < since + TIMEOUT_SECONDS:
        time.sleep(0.1)
    return found, time.monotonic() - since


def _letters(client: httpx.Client) -> set[str]:
    answer: dict[str, Any] = client.get("/dead-letters?limit=10000").raise_for_status().json()
    return {letter["trace_id"] for letter in answer["dead_letters"] if letter["reason"] == "crashed"}


def _crashed(settings: Settings, oap: Oap, began: datetime) -> set[str]:
    """Return the ids of the traces with a crashed span."""
    condition: dict[str, Any] = {
        "serviceId": oap.service_id(f"{settings.service_name}-killed"),
        "traceState": "ALL",
        "queryOrder": "BY_START_TIME",
        "tags": [{"key": "task.outcome", "value": "crashed"}],
    }
    if condition["serviceId"] is None:
        return set()
    if oap.has_whole_traces:
        traces = [trace for page in oap.pages(_CRASHED_WHOLE, condition, began) for trace in page]
        return {span["traceId"] for trace in traces for span in trace["spans"]}
    rows = [row for page in oap.pages(_CRASHED, condition, began) for row in page]
    return {trace_id for row in rows for trace_id in row["traceIds"]}
