"""`TEST_OAP_URL` and `TEST_OAP_GRPC` name an OAP that runs already; without them the session starts its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from consoles import CHROMIUM, FLAGS, SOON_MS
from harness import EmbeddedOap, OapServer
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"the browser tests need Chromium at {CHROMIUM}: apt-get install chromium, or set CHROMIUM")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SOON_MS)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []
