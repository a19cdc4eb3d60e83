"""Whether OAP works, also before it has looked at its own health."""

from __future__ import annotations

import httpx
import pytest
from oap_query import Oap


@pytest.mark.parametrize(
    ("status", "answer", "healthy"),
    [
        (200, {}, True),
        (503, {"data": {"checkHealth": {"score": -1}, "listServices": []}}, True),
        (503, {"data": {"checkHealth": {"score": 1}, "listServices": []}}, False),
        (503, {"data": {"checkHealth": {"score": -1}}, "errors": [{"message": "the database has been closed"}]}, False),
        (503, {"data": {"checkHealth": None}}, False),
        (404, {"detail": "Not Found"}, False),
    ],
)
def test_an_oap_that_can_read_its_storage_is_well_before_it_has_looked(
    status: int, answer: dict[str, object], *, healthy: bool
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status) if request.url.path == "/healthcheck" else httpx.Response(200, json=answer)

    assert Oap("http://oap", transport=httpx.MockTransport(handle)).healthy() is healthy


def test_an_oap_that_is_away_is_not_well() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert not Oap("http://oap", transport=httpx.MockTransport(refuse)).healthy()
