"""What `make verify` says of the endpoints that it called."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from oap_query import Oap, Span
from stack.verify import endpoints as verify_endpoints
from stack.verify.endpoints import check_endpoints

if TYPE_CHECKING:
    import pytest

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def span(name: str, number: int = 0, service: str = "demo") -> Span:
    return Span("t", name, number, number - 1, (), service, "i", name, "Local", "", "", "", False, 0, 1, {}, ())


SPANS = [span("HTTP GET /test"), span("FastAPI request handling", 1), span("task"), span("task", service="demo-small")]


def check(monkeypatch: pytest.MonkeyPatch, *listed: str) -> tuple[bool, str]:
    def endpoints(_oap: Oap, service: str, limit: int, *, since: datetime) -> list[str]:
        assert (service, since) == ("demo", NOW)
        assert limit > len(listed)
        return list(listed)

    monkeypatch.setattr(verify_endpoints, "endpoints", endpoints)
    return check_endpoints(Oap("http://oap"), "demo", SPANS, NOW, timeout_seconds=0)


def test_each_first_span_of_a_segment_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, "HTTP GET /test", "task", "another") == (True, "findEndpoint has all 2 of them")


def test_one_that_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    holds, text = check(monkeypatch, "HTTP GET /test")
    assert not holds
    assert text.startswith("findEndpoint lacks 1 of 2 (docs/upstream-last-ping.md")
    assert text.endswith(": task")
