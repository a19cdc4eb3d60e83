"""For all tests: no proxy for what is on this machine, and which of them pytest-xdist may tear apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stack.settings import exempt_loopback

if TYPE_CHECKING:
    from collections.abc import Generator

exempt_loopback()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the tests of a file to one worker, as they share what they start."""
    if not (item.get_closest_marker("xdist_group") or item.get_closest_marker("alone")):
        item.add_marker(pytest.mark.xdist_group(item.location[0]))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Let pytest-xdist send what a test has logged, half characters included."""
    return _encodable((yield))


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(one) for key, one in value.items()}
    return type(value)(map(_encodable, value)) if isinstance(value, list | tuple) else value
