"""The comparison's own arithmetic, and how it is written down; the rig itself is tried in `tests/test_crash.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from oap_query import Span
from stack.compare import command, limits, tables
from stack.compare.faults import Outcome
from stack.compare.measure import Cost, Found, Pace, _p99
from stack.compare.progress import Progress
from stack.compare.traces import look_for
from stack.settings import Settings, UsageError
from tracing_console.data import last_crash

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

CELERY, PROCESS = command.BY_NAME["celery"], command.BY_NAME["process"]


def outcome(**found: int | str | None) -> Outcome:
    values = {
        "accepted": 200,
        "refused": 0,
        "done": 200,
        "done_twice": 0,
        "dead": 0,
        "lost": 0,
        "shown": 0,
        "unfinished": 0,
    }
    return Outcome(**{"variant": "celery", "fault": "kill", **values, **found})  # type: ignore[arg-type]


def span(work: str, **tags: str) -> Span:
    failed = tags.get("task.outcome") == "crashed"
    return Span(
        "t",
        "s",
        0,
        -1,
        (),
        "service",
        "one",
        CELERY.span,
        "Entry",
        "",
        "Celery",
        "MQ",
        failed,
        1,
        2,
        {"task.id": work, **tags},
        (),
    )


class FakeOap:
    def __init__(self, traces: dict[str, list[Span]]) -> None:
        self.traces = traces

    def trace(self, trace: str) -> list[Span]:
        return self.traces[trace]


def test_a_percentile_is_never_more_than_was_measured() -> None:
    assert _p99([7.0]) == 7.0
    assert 58 < _p99([float(number) for number in range(60)]) <= 59


@pytest.mark.parametrize(
    ("limit", "most_sent"),
    [(2.0, 20), (4.0, 32), (100.0, 800), (700.0, 5_600)],
)
def test_as_much_is_sent_as_a_variant_can_do_in_some_seconds(
    monkeypatch: pytest.MonkeyPatch, limit: float, most_sent: int
) -> None:
    sent = []

    def step(_rig: object, _variant: object, count: int) -> float:
        sent.append(count)
        return 1 + max(0.0, count - limit) / limit

    monkeypatch.setattr(limits, "_step", step)
    found = limits.throughput(None, CELERY)  # type: ignore[arg-type]
    assert 0.8 * limit <= found <= limit
    assert max(sent) <= most_sent
    assert len(sent) <= limits.MOST_STEPS


def test_a_retry_is_neither_an_end_nor_broken() -> None:
    traces = {
        "done": [span("1", **{"task.outcome": "retried"}), span("1", **{"task.outcome": "succeeded"})],
        "open": [span("2", **{"task.outcome": "retried"})],
        "killed": [span("3", **{"task.outcome": "crashed"})],
        "again": [span("4", **{"task.outcome": "crashed"}), span("4", **{"task.outcome": "succeeded"})],
    }
    shown = look_for(FakeOap(traces), CELERY, traces, expected=2, seconds=0)  # type: ignore[arg-type]
    assert (shown.complete, shown.ended, shown.broken) == (2, {"1", "4"}, {"3", "4"})


def test_faults_are_for_those_that_can_have_them() -> None:
    assert list(CELERY.faults) == ["kill", "term", "broker"]
    assert list(PROCESS.faults) == ["kill", "term"]
    with pytest.raises(UsageError, match="none of process can have the fault broker"):
        command.crash(Settings(_env_file=None), "redis", ["process"], ["broker"])


def test_only_known_variants_are_chosen() -> None:
    assert command.choose([]) == list(command.VARIANTS)
    assert command.choose(["celery"]) == [CELERY]
    with pytest.raises(UsageError, match="there is no variant 'celeri'"):
        command.choose(["celeri"])


def test_the_tables_say_what_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pace = Pace(1.25, 20, 3, 2_000, 1_234, 5, math.nan)
    found = {"celery": Found(tables.middle([pace, pace]), Cost(7, 580, 9.9, 16.2, 4, 1_500), 3.9)}
    rows = tables.compared(found, command.TITLE)
    assert rows[0][:7] == ("Celery", "1.2 ms", "20 ms", "3.0 ms", "2,000 ms", "4", "3.9")
    found = {"queue": Found(pace, Cost(3, 240, 9.9, 16.2, 1_500, 1_500), 300)}
    assert tables.compared(found, command.TITLE)[0][5] == "> 1,500"
    assert rows[0][-1] == tables.NOTHING
    assert len(rows[0]) == len(tables.COMPARED)
    lost = tables.crashed([outcome(lost=5, done=195, shown=3, unfinished=5)], command.TITLE)
    ((title, crashed),) = lost.items()
    assert crashed == [("Celery", "200", "0", "195", "0", "0", "**5**", "3 of 5", "5")]
    assert title.startswith("kill -9")
    page = tmp_path / "alternatives.md"
    page.write_text("before\n<!-- crash-redis -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(command, "PAGE", page)
    console: Console = command.new_console()
    command._write(console, tmp_path / "crash-redis", [], tables.markdown(tables.CRASHED, crashed), docs=True)
    text = page.read_text()
    assert text.startswith("before\n<!-- crash-redis -->\n|  | accepted |")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    with pytest.raises(UsageError, match="has no place for it"):
        command._write(console, tmp_path / "compare-redis", [], "", docs=True)


def test_how_far_a_run_is_can_be_read_meanwhile(tmp_path: Path) -> None:
    assert last_crash(tmp_path) is None
    progress = Progress(tmp_path / "compare" / "progress.json")
    progress.begin(CELERY, "kill", 200)
    progress.tell(answered=7, lost=3, traces=[{"id": "t1", "failed": True}])
    run = last_crash(tmp_path)
    assert run is not None
    assert (run.variant, run.fault, run.requests, run.lost, run.ended) == ("celery", "kill", 200, 3, False)
    assert run.traces[0].failed
    progress.begin(PROCESS, "term", 24)
    run = last_crash(tmp_path)
    assert run is not None
    assert (run.variant, run.lost, run.traces) == ("process", None, [])
    assert [file.name for file in (tmp_path / "compare").iterdir()] == ["progress.json"]
