"""The pictures of docs/tour.md: each pattern of background work as a waterfall, drawn from a real trace.

`make screenshots` runs it beside the running stack, which needs a broker. Each picture is one request and its trace.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4
from xml.sax.saxutils import escape

import httpx
from oap_query import Oap, OapError, build, outline
from stack.settings import exempt_loopback, load_settings

if TYPE_CHECKING:
    from oap_query import Node

TARGET: Final = Path(__file__).parent / "tour"
TIMEOUT_SECONDS: Final = 60.0
ROW: Final = 22  # height, in px as all below
LABELS: Final = 330
NUMBERS: Final = 150
BARS: Final = 420
STYLE: Final = """
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328 }
.n { text-anchor: end; fill: #59636e } .h { fill: #59636e } rect { fill: #0a7ea4 }
.Entry { fill: #1a7f37 } .Exit { fill: #9a6700 } .failed { fill: #d1242f } .ground { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .n, .h { fill: #9198a1 } rect { fill: #4cc2e6 }
  .Entry { fill: #3fb950 } .Exit { fill: #d29922 } .failed { fill: #f85149 } .ground { fill: #0d1117 }
}"""


class Stop(NamedTuple):
    """One picture: a request, and how many spans its complete trace has."""

    name: str
    method: str
    path: str
    spans: int
    fault: str = ""
    has_id: bool = False


STOPS: Final = (
    Stop("background-task", "GET", "/test?duration=3", 3),
    Stop("blocking", "GET", "/test/blocking?duration=3", 2),
    Stop("threading", "GET", "/test/threading?duration=3", 4),
    Stop("create-task", "GET", "/test/create-task?duration=3", 3),
    Stop("process", "GET", "/test/process?duration=3", 4),
    Stop("celery", "GET", "/test/celery?duration=3", 4),
    Stop("queue", "GET", "/test/queue?duration=3", 4),
    Stop("parallel", "POST", "/complex-action?mode=parallel&duration=3", 5),
    Stop("sequential", "POST", "/complex-action?mode=sequential&duration=3", 5),
    Stop("sequential-failure", "POST", "/complex-action?mode=sequential&duration=1", 8, "error"),
    Stop("retried", "GET", "/test?duration=1", 6, "error;times=2"),
    Stop("dead-letter", "GET", "/test?duration=1", 6, "error"),
    Stop("with-data", "POST", "/process?duration=3", 3, has_id=True),
)


def main() -> int:
    """Make every request twice, as the first one is slower, and draw the second one's trace."""
    settings = load_settings(running=True)
    exempt_loopback()
    TARGET.mkdir(exist_ok=True)
    oap = Oap(settings.oap_url)
    try:
        with httpx.Client(base_url=settings.service_url, timeout=60) as client:
            for stop in STOPS:
                _ask(client, stop)
                time.sleep(0.5)
                trace_id = _ask(client, stop)
                spans = oap.wait_for_trace(trace_id, lambda found: len(found) >= stop.spans, TIMEOUT_SECONDS)  # noqa: B023
                roots = build(spans)
                (TARGET / f"{stop.name}.svg").write_text(draw(roots))
                print(f"{stop.name}: {len(spans)} of {stop.spans} spans\n{outline(roots)}")
    except (httpx.HTTPError, OapError) as error:
        print(f"the stack does not answer ({error or type(error).__name__}): `make up` first", file=sys.stderr)
        return 1
    return 0


def _ask(client: httpx.Client, stop: Stop) -> str:
    response = client.request(
        stop.method,
        stop.path,
        headers={"X-Fault": stop.fault} if stop.fault else {},
        json={"id": uuid4().hex, "lines": 3} if stop.has_id else None,
    )
    trace_id: str = response.raise_for_status().headers["X-Trace-Id"]
    return trace_id


def draw(roots: list[Node]) -> str:
    """Draw span trees as an SVG: a row a span, with start and duration in ms."""
    rows = [row for root in roots for row in root.walk()]
    begin = min(node.span.start for _, node in rows)
    total = max(1, max(node.span.end for _, node in rows) - begin)
    width, height = LABELS + NUMBERS + BARS + 20, ROW * (len(rows) + 1) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<style>{STYLE}</style><rect class="ground" width="100%" height="100%" rx="6"/>',
        f'<text class="h" x="12" y="{ROW}">span (times in ms)</text>',
        f'<text class="n" x="{LABELS + 60}" y="{ROW}">start</text>',
        f'<text class="n" x="{LABELS + NUMBERS - 8}" y="{ROW}">duration</text>',
    ]
    for place, (depth, node) in enumerate(rows, start=2):
        span, y = node.span, place * ROW
        colour = "failed" if span.error else span.kind
        x = LABELS + NUMBERS + 4 + (span.start - begin) / total * BARS
        length = max(3.0, span.duration / total * BARS)
        arrow = "⇢ " if node.reference else ""
        parts += [
            f'<text class="{colour}" x="{12 + depth * 16}" y="{y}">{arrow}{escape(span.name)}</text>',
            f'<text class="n" x="{LABELS + 60}" y="{y}">{span.start - begin:,}</text>',
            f'<text class="n" x="{LABELS + NUMBERS - 8}" y="{y}">{span.duration:,}</text>',
            f'<rect class="{colour}" x="{x:.1f}" y="{y - 11}" width="{length:.1f}" height="12" rx="2"/>',
        ]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    sys.exit(main())
