"""Whatever answers in OAP's place, whoever asks gets one kind of error, with a sentence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from oap_query import (
    Metric,
    Oap,
    OapError,
    Started,
    alarms,
    arrived,
    endpoints,
    failed,
    instances,
    log_lines,
    long_tasks,
    read,
    refreshed,
    segments,
    services,
    started,
    tells_recovery,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime.now(UTC)
TASK = Started("a", "s", "7", "resize", "shop", "i", 0, 0)
BODIES = (
    *(b"\xff\xfe", b"", b"{}", b"[]", b"null", b'"text"', b"7", b'{"data": null}', b'{"data": {}}', b'{"data": [1]}'),
    *(b'{"errors": "x"}', b'{"errors": [{}]}', b'{"errors": [7]}', b'{"data": {"time": {"timezone": "+99"}}}'),
    b'{"data": {"trace": {"spans": [{}]}, "service": {"id": 1}, "found": [{}], "t0": {"spans": [{}]}}}',
    b'{"data": {"trace": null, "service": [], "found": null, "t0": null, "hasQueryTracesV2Support": true}}',
)
QUESTIONS: tuple[Callable[[Oap], object], ...] = (
    lambda oap: oap.trace("a"),
    lambda oap: oap.traces_since("shop", NOW),
    lambda oap: oap.duration(NOW),
    lambda oap: oap.service_id("shop"),
    lambda oap: list(segments(oap, NOW)),
    services,
    lambda oap: whole(oap, ["a"]),
    lambda oap: failed(oap, ["a"]),
    lambda oap: read(oap, [Metric("service_cpm", "shop")], NOW),
    lambda oap: endpoints(oap, "shop"),
    lambda oap: instances(oap, "shop", NOW),
    lambda oap: alarms(oap, NOW),
    lambda oap: log_lines(oap, "a"),
    tells_recovery,
    lambda oap: list(started(oap, NOW)),
    lambda oap: list(long_tasks(oap, NOW)),
    lambda oap: refreshed(oap, [TASK]),
    lambda oap: arrived(oap, [TASK]),
)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("ask", QUESTIONS)
def test_an_answer_that_is_none_of_oaps_is_an_error_of_oap(body: bytes, ask: Callable[[Oap], object]) -> None:
    oap = Oap("http://oap", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body)))
    try:
        ask(oap)
    except OapError as error:
        assert len(str(error)) > 20  # noqa: PT017  # some bodies are an answer to some questions


def test_garbage_is_no_answer_to_remember() -> None:
    answers = [b"[]", b'{"data": null}', b"{}", b'{"data": {"hasQueryTracesV2Support": true}}']
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=answers.pop(0)))
    oap = Oap("http://oap", transport=transport)
    for _ in range(3):
        with pytest.raises(OapError):
            _ = oap.has_whole_traces
    assert oap.has_whole_traces is True
