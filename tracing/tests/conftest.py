"""A process without OAP: what the agent would report is collected in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from skywalking import config
from skywalking.agent import agent
from skywalking_background import _agent
from skywalking_background._spans import enter_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The segments that were finished, in their order."""
    finished: list[Any] = []
    monkeypatch.setattr(agent, "archive_segment", finished.append, raising=False)
    monkeypatch.setattr(agent, "is_segment_queue_full", lambda: False, raising=False)
    monkeypatch.setattr(config, "agent_profile_active", False)
    monkeypatch.setattr(_agent, "start", lambda: None)
    enter_root()
    yield finished
    enter_root()
