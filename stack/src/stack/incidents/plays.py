"""How each incident is played: its load, what is read from OAP, and the picture that is made of the traces."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oap_query import is_request

from stack.incidents.record import Lane, Piece, Symptom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import httpx
    from oap_query import Span

    from stack.incidents.record import Tone
    from stack.incidents.stage import Stage
    from stack.load import Sent

Traces = dict[str, "list[Span]"]

OK: Final = 200
REFUSED: Final = 503


@dataclass(frozen=True)
class Seen:
    """What one side has shown."""

    symptom: Symptom
    facts: dict[str, str]
    trace_id: str
    lanes: tuple[Lane, ...]


@dataclass(frozen=True)
class Play:
    """How an incident is played."""

    run: Callable[[Stage, str], Seen]
    """Called with the stage and the setting of the side, as `Incident.before` and `.after` have it."""
    seconds: float
    """How long it took on two cores, so that a reader knows what to expect."""


# Three tasks of one response.

ORDERS: Final = 5
TASK_SECONDS: Final = 3.0
SECONDS_PER_HOUR: Final = 6.0


def _sequential(stage: Stage, setting: str) -> Seen:
    with stage.running():
        sent = stage.send("POST", f"/complex-action?{setting}", ORDERS, rate=4, seconds=TASK_SECONDS)
        traces = stage.traces(sent, lambda spans: len(_tasks(spans)) == 3)  # noqa: PLR2004  # task1 to task3
        expressions = ["meter_background_task_queue_delay_ms", "meter_background_task_started"]
        delays, _ = stage.metric(expressions, lambda found: bool(found[0]) and sum(found[1]) >= ORDERS, "task3")
    late_ms = max(delays)
    first = sent[0]
    symptom = Symptom("task3 begins late, on average", late_ms, "ms", "meter_background_task_queue_delay_ms")
    end = max((span.end for span in traces[first.trace_id]), default=0)
    facts = {
        "which stands for": _hours(late_ms),
        "all three done after": f"{(end - first.at_ms) / 1000:.1f} s ({_hours(end - first.at_ms)})",
        "answers took": f"{_middle(sent):.1f} ms",
    }
    return Seen(symptom, facts, first.trace_id, _tree_lanes(traces[first.trace_id], first.at_ms))


def _hours(milliseconds: float) -> str:
    return f"{milliseconds / 1000 / SECONDS_PER_HOUR * 60:.0f} min"


# Forty threads.

THREADS: Final = 40
BLOCKING_SECONDS: Final = 4.0
VISITORS: Final = 10


def _threads(stage: Stage, setting: str) -> Seen:
    with stage.running():
        stage.send("GET", "/plain", 1, rate=1)  # the first thread and the first route are slower
        tasks = stage.send("GET", f"/test/threading?{setting}", THREADS, rate=200, seconds=BLOCKING_SECONDS)
        visitors = stage.send("GET", "/plain", VISITORS, rate=10)
        found = stage.traces(tasks, lambda spans: bool(_tasks(spans)))
        found |= stage.traces(visitors, lambda spans: bool(_requests(spans)))
        expressions = ["endpoint_resp_time", "endpoint_cpm"]
        times, _ = stage.metric(expressions, _counted(1 + VISITORS), "HTTP GET /plain")
    began = tasks[0].at_ms
    lanes = [
        Lane(f"task {number}", one.trace_id, _pieces(_tasks(found[one.trace_id]), began, "task"))
        for number, one in enumerate(tasks, 1)
    ]
    lanes += [
        Lane(f"answer {number}", one.trace_id, _pieces(_requests(found[one.trace_id]), began, "answer"))
        for number, one in enumerate(visitors, 1)
    ]
    symptom = Symptom("HTTP GET /plain takes, on average", max(times), "ms", "endpoint_resp_time")
    facts = {
        "the slowest answer": f"{max(one.milliseconds for one in visitors):,.0f} ms",
        "the median of them": f"{_middle(visitors):,.1f} ms",
        "blocking tasks beside them": str(THREADS),
    }
    return Seen(symptom, facts, visitors[0].trace_id, tuple(lanes))


# A neighbour that does not answer.

ORDERS_TO_NEIGHBOUR: Final = 36
ORDERS_A_SECOND: Final = 6.0


def _neighbour(stage: Stage, _setting: str) -> Seen:
    with stage.running() as client:
        sent = stage.send("GET", "/test", ORDERS_TO_NEIGHBOUR, rate=ORDERS_A_SECOND, fault="hang", seconds=0)
        accepted = [one for one in sent if one.status == OK]
        refused = [one for one in sent if one.status == REFUSED]
        found = stage.traces(accepted, lambda spans: bool(_tasks(spans)))
        found |= stage.traces(refused, lambda spans: bool(_requests(spans)))
        expressions = ["endpoint_sla", "endpoint_cpm"]
        rates, loads = stage.metric(expressions, _counted(ORDERS_TO_NEIGHBOUR), "HTTP GET /test")
        letters = client.get("/dead-letters?limit=1").raise_for_status().json()["total"]
    began = sent[0].at_ms
    lanes = []
    for number, one in enumerate(sent, 1):
        spans = found.get(one.trace_id, [])
        if one.status == OK:
            lanes.append(Lane(f"order {number}", one.trace_id, _attempts(spans, one, began)))
        else:
            at = (one.at_ms - began) / 1000
            lanes.append(Lane(f"order {number}", one.trace_id, (Piece(at, at + one.milliseconds / 1000, "refused"),)))
    rate = sum(rate * load for rate, load in zip(rates, loads, strict=True)) / 100 / sum(loads)
    symptom = Symptom("HTTP GET /test succeeds", rate, "%", "endpoint_sla")
    waits = [float(span.tags.get("task.queue_delay_ms", 0)) for one in accepted for span in _tasks(found[one.trace_id])]
    facts = {
        "orders refused with 503": f"{len(refused)} of {len(sent)}",
        "the longest wait for a place": f"{max(waits, default=0) / 1000:.1f} s",
        "dead letters, to be replayed": str(letters),
    }
    return Seen(symptom, facts, accepted[0].trace_id, tuple(lanes))


def _attempts(spans: list[Span], sent: Sent, began: float) -> tuple[Piece, ...]:
    """Draw a task's wait and its attempts, and the pauses between these as waits."""
    attempts = sorted((span for span in spans if "task.attempt" in span.tags), key=lambda span: span.start)
    pieces = []
    at = sent.at_ms
    for span in attempts:
        pieces += [_piece(at, span.start, began, "wait"), _piece(span.start, span.end, began, "failed")]
        at = span.end
    return tuple(pieces)


# A process that is killed.

TASKS: Final = 200
LONG_TASK_SECONDS: Final = 30.0
KILLED_AFTER_SECONDS: Final = 4.0
DRAWN: Final = 50
"""Lanes of the picture: all two hundred are counted."""


def _killed(stage: Stage, setting: str) -> Seen:
    journal = setting.endswith("written")
    with stage.running() as client:
        sent = stage.send("GET", "/test", TASKS, rate=100, seconds=LONG_TASK_SECONDS)
        stage.traces(sent, lambda spans: bool(_requests(spans)))
        time.sleep(max(0.0, sent[0].at_ms / 1000 + TASKS / 100 + KILLED_AFTER_SECONDS - time.time()))
        killed_ms = time.time() * 1000
        stage.kill()
    with stage.running() as client:
        letters = _letters(client, TASKS if journal else 0)
        found = stage.traces(sent, lambda spans: bool(_requests(spans)) and (not journal or bool(_tasks(spans))))
        kinds = ("started", "succeeded", "failed", "crashed")
        started, *ended = stage.metric(
            [f"meter_background_tasks_{kind}" for kind in kinds],
            lambda found: sum(found[0]) >= TASKS and (not journal or sum(found[-1]) >= TASKS),
        )
        ready = client.get("/tasks?limit=1").raise_for_status().json()
    began = sent[0].at_ms
    crashed = [one for one in sent if _crashed(found[one.trace_id])]
    succeeded, failed, told = (sum(values) for values in ended)
    open_ends = sum(started) - succeeded - max(failed, told)  # one that crashed may count as failed, too
    symptom = Symptom(
        "tasks that have begun and have no end", open_ends, "tasks",
        "meter_background_tasks_started less succeeded, failed and crashed",
    )  # fmt: skip
    facts = {
        "orders answered with ok": str(sum(one.status == OK for one in sent)),
        "traces that show the crash": f"{len(crashed)} of {TASKS}",
        "dead letters, to be replayed": str(letters),
        "tasks that run after the restart": str(ready["running"]),
    }
    lanes = tuple(
        Lane(f"order {number + 1}", sent[number].trace_id, _until_kill(found, sent[number], began, killed_ms))
        for number in range(0, TASKS, TASKS // DRAWN)
    )
    return Seen(symptom, facts, sent[0].trace_id, lanes)


def _letters(client: httpx.Client, expected: int) -> int:
    deadline = time.monotonic() + 20
    while True:
        total: int = client.get("/dead-letters?limit=1").raise_for_status().json()["total"]
        if total >= expected or time.monotonic() > deadline:
            return total
        time.sleep(0.2)


def _crashed(spans: Iterable[Span]) -> list[Span]:
    return [span for span in spans if span.error and span.tags.get("task.outcome") == "crashed"]


def _until_kill(found: Traces, sent: Sent, began: float, killed_ms: float) -> tuple[Piece, ...]:
    if crashed := _crashed(found[sent.trace_id]):
        return _pieces(crashed, began, "crashed")
    return (_piece(sent.at_ms + sent.milliseconds, killed_ms, began, "lost"),)


def _counted(requests: int) -> Callable[[list[list[float]]], bool]:
    """Return what says whether a metric and the load beside it are of so many requests."""
    return lambda found: len(found[0]) == len(found[1]) and sum(found[1]) >= requests


# Pieces of pictures.


def _tasks(spans: Iterable[Span]) -> list[Span]:
    """Return the spans of background tasks: those that begin a segment which a request left behind."""
    return [span for span in spans if span.refs and span.span_id == 0 and "task.id" in span.tags]


def _requests(spans: Iterable[Span]) -> list[Span]:
    return [span for span in spans if span.kind == "Entry" and is_request(span.name)]


def _piece(start_ms: float, end_ms: float, began_ms: float, tone: Tone) -> Piece:
    start = max(0.0, (start_ms - began_ms) / 1000)
    return Piece(start, max(start, (end_ms - began_ms) / 1000), tone)


def _pieces(spans: Iterable[Span], began_ms: float, tone: Tone) -> tuple[Piece, ...]:
    return tuple(_piece(span.start, span.end, began_ms, tone) for span in spans)


def _tree_lanes(spans: list[Span], began_ms: float) -> tuple[Lane, ...]:
    """Draw one trace: its request, and each of its tasks with the wait before it."""
    requests = _requests(spans)
    lanes = [Lane(span.name, span.trace_id, _pieces([span], began_ms, "answer")) for span in requests]
    answered = max((span.end for span in requests), default=began_ms)
    for span in sorted(_tasks(spans), key=lambda span: span.name):
        wait = _piece(answered, span.start, began_ms, "wait")
        lanes.append(Lane(span.name, span.trace_id, (wait, *_pieces([span], began_ms, "task"))))
    return tuple(lanes)


def _middle(sent: list[Sent]) -> float:
    times = sorted(one.milliseconds for one in sent)
    return times[len(times) // 2]


PLAYS: Final[Mapping[str, Play]] = {
    "sequential": Play(_sequential, 30),
    "threads": Play(_threads, 25),
    "neighbour": Play(_neighbour, 40),
    "killed": Play(_killed, 35),
}
