"""For the tests of people who use this library: the finished spans of a test, in memory and without OAP.

```python
from skywalking_background.testing import recorded_spans


def test_the_mail_is_sent_after_the_answer(client: TestClient) -> None:
    with recorded_spans() as spans:
        client.post("/orders")
    mail = spans.one("send_mail")
    assert mail.parent is spans.one("HTTP POST /orders")
```
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skywalking_background._internals import agent
from skywalking_background._requests import Behavior
from skywalking_background._segments import send_what_waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skywalking_background._internals import Segment


@dataclass(eq=False)
class RecordedSpan:
    """A finished span, as OAP would have got it."""

    name: str
    kind: str
    """`Entry`, `Exit` or `Local`."""
    trace_id: str
    start: int
    """In ms since the epoch, as `end`."""
    end: int
    failed: bool
    tags: dict[str, str]
    logs: list[dict[str, str]] = field(default_factory=list)
    """An error is `event`, `error.kind`, `message` and `stack`."""
    parent: RecordedSpan | None = None
    """The span that it hangs below, in its segment or in another; `None` for the first of a trace."""
    key: tuple[str, int] = ("", -1)
    above: tuple[str, int] = ("", -1)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}{' failed' if self.failed else ''}>"


class RecordedSpans(list[RecordedSpan]):
    """The finished spans, in the order in which their segments were finished."""

    def one(self, name: str) -> RecordedSpan:
        """Return the only span of that name.

        Raises:
            LookupError: there is none, or several; the message lists what there is.
        """
        found = [span for span in self if span.name == name]
        if len(found) != 1:
            message = f"{len(found)} spans are named {name!r}; there is\n{self.tree()}"
            raise LookupError(message)
        return found[0]

    def tree(self) -> str:
        """Draw all traces as indented lines, for a failing test's message."""
        lines: list[str] = []

        def draw(above: RecordedSpan | None, depth: int) -> None:
            for span in sorted((one for one in self if one.parent is above), key=lambda one: one.start):
                lines.append(f"{'  ' * depth}{span.kind} {span.name}{' failed' if span.failed else ''}")
                draw(span, depth + 1)

        draw(None, 0)
        return "\n".join(lines)

    def add(self, segment: Segment) -> None:
        """Take a finished segment in."""
        for span in segment.spans:
            key = str(segment.segment_id), span.sid
            above = key[0], span.pid
            if span.pid < 0 and span.refs:
                above = span.refs[0].segment_id, int(span.refs[0].span_id)
            tags: dict[str, str] = {tag.key: tag.val for tag in span.iter_tags()}
            logs = [{item.key: item.val for item in log.items} for log in span.logs]
            recorded = RecordedSpan(
                span.op, span.kind.name, str(segment.related_traces[0]), span.start_time, span.end_time,
                bool(span.error_occurred), tags, logs, key=key, above=above,
            )  # fmt: skip
            self.append(recorded)
        known = {one.key: one for one in self}
        for one in self:
            one.parent = known.get(one.above)


@contextmanager
def recorded_spans(*, raise_task_errors: bool = False) -> Iterator[RecordedSpans]:
    """Keep the spans that finish meanwhile instead of reporting them: no thread is started, no OAP is asked.

    Of work that has not ended yet, what has is there when the block ends.

    Args:
        raise_task_errors: let the error of a failing background task reach the test client, as it does without this
            library; in production it is logged and ends at the request.
    """
    spans = RecordedSpans()
    before: Any = agent.__dict__.get("archive_segment")
    contained = Behavior.contain_late_errors
    agent.archive_segment = spans.add
    Behavior.contain_late_errors = not raise_task_errors
    try:
        yield spans
        send_what_waits(float("inf"))
    finally:
        Behavior.contain_late_errors = contained
        if before is None:
            del agent.archive_segment
        else:
            agent.archive_segment = before
