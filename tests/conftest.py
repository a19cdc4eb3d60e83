"""`TEST_OAP_URL` and `TEST_OAP_GRPC` name an OAP that runs already; without them the session starts its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from consoles import CHROMIUM, FLAGS, SOON_MS
from harness import EmbeddedOap, OapServer
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

SHARED = pytest.StashKey[EmbeddedOap]()


def pytest_configure(config: pytest.Config) -> None:
    """Start one OAP for all of xdist's workers; a worker waits for it when its first test needs it."""
    several = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if several and not config.option.collectonly and "TEST_OAP_URL" not in os.environ:
        shared = config.stash[SHARED] = EmbeddedOap(Path(tempfile.mkdtemp(prefix="oap-")) / "data")
        os.environ.update(TEST_OAP_URL=shared.url, TEST_OAP_GRPC=shared.grpc)  # the workers inherit them
        shared.launch()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End it after the last worker."""
    if shared := config.stash.get(SHARED, None):
        shared.stop()
        shutil.rmtree(shared.data.parent)


@pytest.fixture(scope="session")
def oap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OapServer]:
    """The OAP that the tests share."""
    url, grpc = os.environ.get("TEST_OAP_URL"), os.environ.get("TEST_OAP_GRPC")
    if url and grpc:
        given = OapServer(grpc, url)
        given.wait()
        yield given
        return
    with EmbeddedOap.running(tmp_path_factory.mktemp("oap")) as own:
        yield own


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
