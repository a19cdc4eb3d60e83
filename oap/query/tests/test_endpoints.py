"""The endpoints that OAP has heard of since a moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from oap_query import Oap, OapError, endpoints

SINCE = datetime(2026, 11, 24, 12, tzinfo=UTC)


def oap(answer: dict[str, Any], *, knows_times: bool) -> Oap:
    """Make an OAP with these endpoints, each with whether it was heard of lately; an early one can't tell."""

    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "getTimeInfo" in body["query"]:
            return httpx.Response(200, json={"data": {"time": {"timezone": "+0200"}}})
        if "findService" in body["query"]:
            return httpx.Response(200, json={"data": {"service": {"id": "ZGVtbw==.1"}}})
        timed = "duration" in body["query"]
        if "error" in answer or (timed and not knows_times):
            text = answer.get("error", "Validation error (UnknownArgument@[findEndpoint]) : Unknown field argument")
            return httpx.Response(200, json={"errors": [{"message": text}]})
        if timed:
            assert body["variables"]["duration"]["start"] == "2026-11-24 1400"
        found = [{"name": name} for name, lately in answer.items() if lately or not timed]
        return httpx.Response(200, json={"data": {"found": found}})

    return Oap("http://oap", transport=httpx.MockTransport(respond))


def test_those_of_late_are_told_from_the_others() -> None:
    made = oap({"task": False, "HTTP GET /": True}, knows_times=True)
    assert endpoints(made, "demo") == ["HTTP GET /", "task"]
    assert endpoints(made, "demo", since=SINCE) == ["HTTP GET /"]


def test_an_oap_before_10_2_gives_all() -> None:
    made = oap({"task": False, "HTTP GET /": True}, knows_times=False)
    assert endpoints(made, "demo", since=SINCE) == ["HTTP GET /", "task"]


def test_another_error_is_not_taken_for_an_early_oap() -> None:
    with pytest.raises(OapError, match="storage"):
        endpoints(oap({"error": "the storage is away"}, knows_times=True), "demo", since=SINCE)
