from __future__ import annotations

from oap_query import Span, build, outline


def span(segment: str, ids: tuple[int, int], name: str, times: tuple[int, int], **more: object) -> Span:
    (number, parent), (start, end) = ids, times
    values = {
        "trace_id": "t", "segment_id": segment, "span_id": number, "parent_span_id": parent, "refs": (),
        "service": "s", "instance": "i", "name": name, "kind": "Local", "peer": "", "component": "", "layer": "",
        "error": False, "start": start, "end": end, "tags": {}, "logs": (), **more,
    }  # fmt: skip
    return Span(**values)  # type: ignore[arg-type]


TRACE = [
    span("b", (0, -1), "task", (2, 1002), refs=(("a", 0, "CROSS_THREAD"),), error=True),
    span("a", (1, 0), "handling", (0, 2)),
    span("b", (1, 0), "attempt", (3, 500)),
    span("a", (0, -1), "GET /", (0, 2), kind="Entry", tags={"http.status_code": "200"}),
]


def test_segments_join_by_their_references() -> None:
    assert outline(build(TRACE)).splitlines() == [
        "Entry GET / 200",
        "  Local handling",
        "  Local task CROSS_THREAD failed",
        "    Local attempt",
    ]


def test_a_part_whose_parent_has_not_arrived_stands_alone() -> None:
    assert outline(build(TRACE[:1])) == "Local task CROSS_THREAD failed"
