"""Reading traces back from OAP, over its GraphQL."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import httpx

from oap_query._errors import OapAwayError, OapError, reads_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_SECONDS: Final = 0.25  # between two looks at a trace that is not complete yet
PAGE_ROWS: Final = 5000  # of a query: each costs OAP as much as all rows before it
NOT_YET_KNOWN: Final = -1  # OAP's health before its first look at itself; 0 is well, 1 and more is ill

_SPAN: Final = """
    traceId segmentId spanId parentSpanId refs { parentSegmentId parentSpanId type }
    serviceCode serviceInstanceName startTime endTime endpointName type peer component isError layer
    tags { key value } logs { time data { key value } }
"""


@dataclass(frozen=True)
class Span:
    """One span as OAP returns it; times in ms since the epoch."""

    trace_id: str
    segment_id: str
    span_id: int
    parent_span_id: int
    refs: tuple[tuple[str, int, str], ...]
    """Of a segment's first span: the segment and the span it came from, and how (CROSS_THREAD or CROSS_PROCESS)."""
    service: str
    instance: str
    name: str
    kind: str
    """`Entry`, `Local` or `Exit`."""
    peer: str
    component: str
    layer: str
    error: bool
    start: int
    end: int
    tags: dict[str, str] = field(hash=False)
    logs: tuple[dict[str, str], ...] = field(hash=False)
    log_times: tuple[int, ...] = ()
    """When each of the logs was made."""

    @property
    def duration(self) -> int:
        """The span's length in ms."""
        return self.end - self.start


class Oap:
    """A connection to one OAP.

    Args:
        url: of its HTTP port.
        timeout: seconds that it may take to connect, and to answer.
        transport: carries the requests instead of a network, in a test.
    """

    def __init__(self, url: str, timeout: float = 10.0, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=timeout, trust_env=False, transport=transport)

    @reads_answers
    def query(self, text: str, **variables: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        """Run one GraphQL query and return its data.

        Raises:
            OapAwayError: no answer.
            OapError: an answer with errors.
        """
        try:
            response = self._client.post("/graphql", json={"query": text, "variables": variables})
            if response.status_code != httpx.codes.BAD_REQUEST:  # a refused query: its body says why
                response.raise_for_status()
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            message = f"OAP at {self.url} does not answer ({error or type(error).__name__})"
            raise OapAwayError(message) from error
        if answer.get("errors"):
            raise OapError("; ".join(item["message"] for item in answer["errors"]))
        if "data" not in answer:
            message = f"the server at {self.url} is no OAP"
            raise OapAwayError(message)
        data: dict[str, Any] = dict(answer["data"])
        return data

    def healthy(self) -> bool:
        """Say whether OAP and its storage work.

        OAP looks at itself for the first time two seconds after its start, and calls itself ill until then: by then it
        is whoever can read the storage.
        """
        try:
            return self._client.get("/healthcheck").is_success or self._health_score() == NOT_YET_KNOWN
        except (httpx.HTTPError, OapError):
            return False

    @reads_answers
    def _health_score(self) -> int:
        """Read what is stored, and return what OAP says of its health."""
        found = self.query('{ checkHealth { score } listServices(layer: "GENERAL") { id } }')
        return int(found["checkHealth"]["score"])

    @reads_answers
    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that have arrived so far, in no order; none for an unknown id."""
        text = f"query ($id: ID!) {{ trace: queryTrace(traceId: $id) {{ spans {{ {_SPAN} }} }} }}"
        return [_span(item) for item in self.query(text, id=trace_id)["trace"]["spans"]]

    def wait_for_trace(
        self, trace_id: str, complete: Callable[[list[Span]], bool], timeout: float = 30.0
    ) -> list[Span]:
        """Poll until a trace is `complete`; after `timeout` seconds return what there is."""
        deadline = time.monotonic() + timeout
        while True:
            spans = self.trace(trace_id)
            if complete(spans) or time.monotonic() > deadline:
                return spans
            time.sleep(POLL_SECONDS)

    def traces_since(self, service: str, start: datetime) -> set[str]:
        """Return the ids of the service's traces that started at or after `start`, which has a timezone."""
        service_id = self.service_id(service)
        if service_id is None:  # which would be any service, to OAP
            return set()
        condition = {
            "serviceId": service_id,
            "traceState": "ALL",
            "queryOrder": "BY_START_TIME",
        }
        pages = self._whole_traces(condition, start) if self.has_whole_traces else self._segments(condition, start)
        return {trace_id for page in pages for trace_id in page}

    @cached_property
    def has_whole_traces(self) -> bool:
        """Whether this OAP's storage (BanyanDB, from 10.3 on) answers with whole traces instead of segments."""
        return self._ask_for_whole_traces()

    @reads_answers
    def _ask_for_whole_traces(self) -> bool:
        try:
            return bool(self.query("{ hasQueryTracesV2Support }")["hasQueryTracesV2Support"])
        except OapAwayError:
            raise  # there was no answer: ask again next time
        except OapError:
            return False  # an OAP before 10.3 does not know the question

    @cached_property
    def version(self) -> str:
        """OAP's version, such as `10.1.0`."""
        text: str = self.query("{ version }")["version"]
        return text.partition("-")[0]

    @reads_answers
    def _segments(self, condition: dict[str, Any], start: datetime) -> Iterator[list[str]]:
        text = """query ($condition: TraceQueryCondition) {
            data: queryBasicTraces(condition: $condition) { traces { traceIds } } }"""
        for rows in self.pages(text, condition, start):
            yield [trace_id for row in rows for trace_id in row["traceIds"]]

    @reads_answers
    def _whole_traces(self, condition: dict[str, Any], start: datetime) -> Iterator[list[str]]:
        text = """query ($condition: TraceQueryCondition) {
            data: queryTraces(condition: $condition) { traces { spans { traceId } } } }"""
        for rows in self.pages(text, condition, start):
            yield [row["spans"][0]["traceId"] for row in rows]

    @reads_answers
    def pages(
        self, text: str, condition: dict[str, Any], start: datetime, end: datetime | None = None
    ) -> Iterator[list[Any]]:
        """Run a trace query over a range of time page by page, as `data`; yield the rows of each page."""
        for duration in reversed(self.durations(start, end)):
            page = 1
            while True:
                paged = {**condition, "queryDuration": duration, "paging": {"pageNum": page, "pageSize": PAGE_ROWS}}
                rows: list[Any] = self.query(text, condition=paged)["data"]["traces"]
                yield rows
                if len(rows) < PAGE_ROWS:
                    break
                page += 1

    @reads_answers
    def service_id(self, name: str) -> str | None:
        """Return OAP's id of a service; `None` when it has not heard of it."""
        found = self.query("query ($name: String!) { service: findService(serviceName: $name) { id } }", name=name)
        return found["service"]["id"] if found["service"] else None

    def duration(self, start: datetime, *, step: str = "SECOND") -> dict[str, str]:
        """Write a time range up to now as OAP reads it: in the timezone of its own machine."""
        return _duration(start.astimezone(self._zone()), _soon(), step)

    def durations(self, start: datetime, end: datetime | None = None, *, step: str = "SECOND") -> list[dict[str, str]]:
        """Write a time range, up to now without an `end`, as one for each day of OAP's clock, the earliest first.

        On SQL stores OAP keeps a table for each day, and of a range that is shorter than a day it reads the first
        day's only: just after midnight it would find nothing of today.
        """
        zone = self._zone()
        start, end = start.astimezone(zone), (end or _soon()).astimezone(zone)
        found = []
        while not self.has_whole_traces and start.date() < end.date():
            midnight = datetime.combine(start.date() + timedelta(days=1), datetime.min.time(), zone)
            found.append(_duration(start, midnight - timedelta(seconds=1), step))
            start = midnight
        return [*found, _duration(start, end, step)]

    @reads_answers
    def _zone(self) -> tzinfo | None:
        offset = self.query("{ time: getTimeInfo { timezone } }")["time"]["timezone"]  # such as +0200
        return datetime.strptime(offset, "%z").tzinfo


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def _duration(start: datetime, end: datetime, step: str) -> dict[str, str]:
    form = "%Y-%m-%d %H%M%S" if step == "SECOND" else "%Y-%m-%d %H%M"
    return {"start": start.strftime(form), "end": end.astimezone(start.tzinfo).strftime(form), "step": step}


def _span(item: dict[str, Any]) -> Span:
    return Span(
        trace_id=item["traceId"],
        segment_id=item["segmentId"],
        span_id=item["spanId"],
        parent_span_id=item["parentSpanId"],
        refs=tuple((ref["parentSegmentId"], ref["parentSpanId"], ref["type"]) for ref in item["refs"]),
        service=item["serviceCode"],
        instance=item["serviceInstanceName"],
        name=item["endpointName"],
        kind=item["type"],
        peer=item["peer"] or "",
        component=item["component"],
        layer=item["layer"],
        error=item["isError"],
        start=item["startTime"],
        end=item["endTime"],
        tags={tag["key"]: tag["value"] for tag in item["tags"]},
        logs=tuple({entry["key"]: entry["value"] for entry in log["data"]} for log in item["logs"]),
        log_times=tuple(log["time"] for log in item["logs"]),
    )
