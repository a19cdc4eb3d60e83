"""For all tests: no proxy for what is on this machine, and which of them pytest-xdist may tear apart."""

from __future__ import annotations

import pytest
from stack._network import exempt_loopback

exempt_loopback()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of a file to one worker, as they share what they start."""
    for item in items:
        if not (item.get_closest_marker("xdist_group") or item.get_closest_marker("alone")):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
