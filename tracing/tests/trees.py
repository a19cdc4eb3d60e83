"""What the unit tests share: a client in the same process, and finished segments as the trees that OAP would draw."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import httpx

Segments = list[Any]


async def get(app: Any, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Send a request to an app, without a server in between."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, headers=headers)


def tags(span: Any) -> dict[str, str]:
    """Return a finished span's tags."""
    return {tag.key: tag.val for tag in span.iter_tags()}


def names(segments: Segments) -> list[str]:
    """Return the spans' names, in the order in which they were finished."""
    return [span.op for segment in segments for span in segment.spans]


def find(segments: Segments, name: str) -> Any:
    """Return the only span of that name."""
    (found,) = (span for segment in segments for span in segment.spans if span.op == name)
    return found


def check(segments: Segments) -> None:
    """Compare with what OAP relies on: each segment has its first span, and each parent and reference exists."""
    keys = {(str(segment.segment_id), span.sid) for segment in segments for span in segment.spans}
    assert len(keys) == sum(len(segment.spans) for segment in segments)
    for segment in segments:
        own = {span.sid for span in segment.spans}
        assert 0 in own
        for span in segment.spans:
            assert span.pid in own if span.sid else span.pid == -1
            assert span.end_time >= span.start_time > 0
            assert not span.refs or span.pid == -1
            for ref in span.refs:
                assert str(ref.trace_id) == str(segment.related_traces[0])
                assert ref.ref_type == "CrossProcess" or (ref.segment_id, int(ref.span_id)) in keys


def outline(segments: Segments) -> str:
    """Draw all traces, siblings by their names, and check that they are whole."""
    check(segments)
    children: dict[tuple[str, int] | None, list[tuple[str, tuple[str, int]]]] = {}
    for segment in segments:
        for span in segment.spans:
            above, how = (str(segment.segment_id), span.pid), ""
            if span.pid < 0:
                refs = [(ref.segment_id, int(ref.span_id)) for ref in span.refs]
                above, how = refs[0] if refs else None, " CROSS_THREAD" if refs else ""  # type: ignore[assignment]
                if refs and span.refs[0].ref_type == "CrossProcess":
                    above, how = None, " CROSS_PROCESS"  # type: ignore[assignment]
            line = f"{span.kind.name} {span.op}{' failed' if span.error_occurred else ''}{how}"
            children.setdefault(above, []).append((line, (str(segment.segment_id), span.sid)))
    lines: list[str] = []

    def draw(above: tuple[str, int] | None, depth: int) -> None:
        for line, key in sorted(children.get(above, ())):
            lines.append("  " * depth + line)
            draw(key, depth + 1)

    draw(None, 0)
    assert len(lines) == sum(len(segment.spans) for segment in segments)
    return "\n".join(lines)


def tree(drawn: str) -> str:
    """Write an expected tree as the tests' source has it."""
    return dedent(drawn).strip()
