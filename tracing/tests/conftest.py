"""A process without OAP: what the agent would report is collected in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from skywalking import config
from skywalking.agent import agent
from skywalking_background import _agent, _faults
from skywalking_background._internals import use_context_class
from skywalking_background._segments import Context, forget_all

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    """Faults of tracing are contained, so a test must look for them; one that means them clears the count."""
    _faults._seen.clear()
    yield
    assert _faults.faults() == {}
    _faults._seen.clear()


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The segments that were finished, in their order."""
    finished: list[Any] = []
    monkeypatch.setattr(agent, "archive_segment", finished.append, raising=False)
    monkeypatch.setattr(agent, "is_segment_queue_full", lambda: False, raising=False)
    monkeypatch.setattr(config, "agent_profile_active", False)
    monkeypatch.setattr(_agent, "start", lambda: None)
    monkeypatch.setattr(_agent, "tracing", lambda: True)
    use_context_class(Context)
    forget_all()
    yield finished
    forget_all()
