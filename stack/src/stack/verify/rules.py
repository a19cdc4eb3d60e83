"""What a request's trace must be in any service, whatever its routes and tasks are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oap_query import build

from stack.verify.lines import broken, holds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from oap_query import Node, Span

    from stack.verify.lines import Line

ENTRY_TOLERANCE_MS: Final = 50
"""The entry span may end so long after the client has the answer, on a busy machine."""
CLIENT_ERROR: Final = 400

INSTRUMENT: Final = "`from skywalking_background import instrument` and `app = instrument(app)`"
"""What mends most of it."""


@dataclass(frozen=True)
class Answer:
    """A request that was answered."""

    path: str
    status: int
    ms: float
    """From the request to the last byte of its answer."""
    sent_id: str
    """The trace id that went along, in the header `sw8`."""
    told_id: str
    """The trace id in the answer's header `X-Trace-Id`; empty where there is none."""

    @property
    def trace_id(self) -> str:
        """Under which id OAP must have the trace."""
        return self.told_id or self.sent_id


def check_trace(answer: Answer, spans: Sequence[Span]) -> Iterator[Line]:
    """Yield the lines of the contract for one request, each with whether it holds and, if not, what to do."""
    roots = build(spans)
    entry = next((node for node in roots if node.span.kind == "Entry"), None)
    if entry is None:
        yield broken("no entry span", "the trace has what the request does, but not the request", f"add {INSTRUMENT}")
        return
    yield _joined(answer)
    yield _one_tree(roots, entry)
    yield _ends_with_response(answer, entry.span)
    yield from _within(entry)
    tasks = [node for _, node in entry.walk() if _is_task(node, entry.span)]
    late_ms = entry.span.duration - answer.ms
    if tasks:
        for task in tasks:
            yield from _check_task(task, entry.span)
    elif late_ms > ENTRY_TOLERANCE_MS:
        yield broken(
            "no span for the background task",
            f"what ran for {late_ms:,.0f} ms after the answer can't be told from the request",
            f"{INSTRUMENT} give each task a span of its own",
        )
    else:
        yield holds("left no background task that has ended by now")
    yield _blames_nobody(answer, entry.span)


def _joined(answer: Answer) -> Line:
    if answer.told_id in {"", answer.sent_id}:
        return holds("joins the trace of its caller (sw8)")
    return broken(
        f"the answer names the trace {answer.told_id}, but the caller's was {answer.sent_id}",
        "something in front of the service's tracing takes the header sw8 away, or the trace is not sampled",
    )


def _one_tree(roots: Sequence[Node], entry: Node) -> Line:
    """Nothing of the trace hangs in the air."""
    stray = [node.span.name for node in roots if node is not entry]
    if not stray:
        return holds("is one tree")
    return broken(
        f"stray roots: {', '.join(stray)} are in the trace, but below nothing that OAP has",
        "the segment of their parent was lost or has not ended: the service's log names dropped segments",
    )


def _ends_with_response(answer: Answer, entry: Span) -> Line:
    if entry.duration <= answer.ms + ENTRY_TOLERANCE_MS:
        return holds(f"entry span ends with the response: {entry.duration:,} ms, answered in {answer.ms:,.1f} ms")
    return broken(
        f"entry span of {entry.duration:,} ms, though the answer was complete after {answer.ms:,.1f} ms",
        "background tasks count as part of the request, as SkyWalking's own FastAPI plugin has it: latency, Apdex and "
        "alarms are wrong",
        f"{INSTRUMENT}, which leaves that plugin out, end it with the response",
    )


def _within(entry: Node) -> Iterator[Line]:
    """What is in the request's own segment must not outlive the request."""
    for _, node in entry.walk():
        span = node.span
        if span.segment_id == entry.span.segment_id and span.end > entry.span.end + ENTRY_TOLERANCE_MS:
            yield broken(
                f"{span.name} is in the request's segment and ends {span.end - entry.span.end:,} ms after the request",
                "work that goes on needs a segment of its own",
                "make it in `with background_span(name):`, or carry it there with `carry`",
            )


def _is_task(node: Node, entry: Span) -> bool:
    """Whether a segment of the same service begins here that is no request to it: work that was left behind."""
    return bool(node.reference) and node.span.kind == "Local" and node.span.service == entry.service


def _check_task(task: Node, entry: Span) -> Iterator[Line]:
    span, delay = task.span, task.span.start - entry.end
    if span.start < entry.start:
        yield broken(
            f"{span.name} begins {entry.start - span.start:,} ms before its request",
            "the clocks of two machines differ",
        )
    else:
        when = f"{delay:,} ms after the response" if delay >= 0 else f"{-delay:,} ms before the response was complete"
        yield holds(f"{span.name} has a span of its own: {span.duration:,} ms, from {when}")
    if task.reference == "CROSS_THREAD" or span.instance != entry.instance:
        yield holds(f"{span.name} hangs below its request: {task.reference}")
    else:
        yield broken(
            f"{span.name} refers to its request by {task.reference}, though both are in one process",
            "it was made under a span that had ended, and SkyWalking draws a call between two processes",
            "make it in `with background_span(name):`",
        )


def _blames_nobody(answer: Answer, entry: Span) -> Line:
    if entry.error and answer.status < CLIENT_ERROR:
        return broken(
            f"the entry span is marked as an error, though the answer was {answer.status}",
            "a failed task has marked its request, and the success rate is wrong",
            f"{INSTRUMENT} keep a task's error at the task",
        )
    return holds(f"the entry span is {'marked as an error' if entry.error else 'no error'}, answered {answer.status}")
