"""`TEST_OAP_URL` and `TEST_OAP_GRPC` name an OAP that runs already; without them the session starts its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from harness import EmbeddedOap, OapServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def oap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OapServer]:
    """The OAP that the tests share."""
    url, grpc = os.environ.get("TEST_OAP_URL"), os.environ.get("TEST_OAP_GRPC")
    if url and grpc:
        yield OapServer(grpc, url)
        return
    own = EmbeddedOap(tmp_path_factory.mktemp("oap") / "data")
    own.start()
    yield own
    own.stop()
