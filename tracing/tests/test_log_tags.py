"""Which task has written a log line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import BackgroundTasks, FastAPI
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking_background import _faults, _log_tags, background_span, faults, instrument, tag
from skywalking_background._log_tags import tag_with_task
from skywalking_background.messaging import consumer_span
from starlette.testclient import TestClient

if TYPE_CHECKING:
    import pytest
    from trees import Segments


def tags_here(segment: str = "7") -> dict[str, str]:
    """Return the tags that a line would get that was written now."""
    log = LogData()
    log.traceContext.traceSegmentId = segment
    tag_with_task(log)
    return {one.key: one.value for one in log.tags.data}


def test_a_task_has_its_name_and_its_id(segments: Segments) -> None:
    with background_span("resize", tags={"task.id": "12"}):
        assert tags_here() == {"task.name": "resize", "task.id": "12"}
        with background_span("inner"):
            assert tags_here() == {"task.name": "resize", "task.id": "12"}
    assert tags_here() == {}


def test_without_an_id_of_its_own_it_is_its_segment(segments: Segments) -> None:
    with background_span("resize"):
        found = tags_here()
    assert found == {"task.name": "resize", "task.id": segments[0].segment_id}


def test_a_line_of_a_request_is_of_no_task(segments: Segments) -> None:
    app, seen = instrument(FastAPI()), []

    def look(where: str) -> None:
        seen.append((where, tags_here().get("task.name")))

    @app.get("/")
    async def answer(tasks: BackgroundTasks) -> str:
        look("request")
        tasks.add_task(look, "task")
        return "ok"

    with TestClient(app) as client:
        client.get("/")
    assert seen == [("request", None), ("task", "look")]


def test_a_consumed_message_is_the_task_that_its_span_says(segments: Segments) -> None:
    with consumer_span("orders", {}, queue="orders", broker="redis:6379"):
        assert tags_here()["task.name"] == "orders"
        tag("task.id", "12")
        assert tags_here() == {"task.name": "orders", "task.id": "12"}


def test_what_is_not_traced_has_no_tags(segments: Segments) -> None:
    with background_span("resize"):
        assert tags_here(segment="") == {}


def test_odd_values_and_faults_are_nobodys_trouble(
    segments: Segments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with background_span("resize"):
        tag("task.id", "\udcff\0" + "x" * 1_000)
        found = tags_here()["task.id"]
        assert found.startswith(r"\udcff\x00xxx")
        assert len(found) < 600

    def fail(_span: Any) -> Any:
        raise ValueError

    monkeypatch.setattr(_log_tags, "task_id", fail)
    with background_span("resize"):
        assert tags_here() == {}
    assert "tagging a log line with its task" in caplog.text
    assert faults() == {"tagging a log line with its task": 1}
    _faults._seen.clear()
