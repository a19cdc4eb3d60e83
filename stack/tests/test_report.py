"""What the report makes of measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stack.load import Sample, TraceCount
from stack.report import Measured, Step
from stack.report.pages import Page, write
from stack.report.soak import Soak
from stack.report.verdicts import Verdict, judge_load, judge_soak

if TYPE_CHECKING:
    from pathlib import Path


def measured(  # noqa: PLR0913  # what a test wants different
    tasks: int = 1000,
    *,
    p99: float = 8.0,
    failed: int = 0,
    lost: int = 0,
    memory: float = 120.0,
    fill: float | None = None,
) -> Measured:
    step = Step(tasks, 10, fill_seconds=fill)
    times = tuple((number, number + 10_001) for number in range(tasks))
    found = TraceCount(tasks, tasks, tasks - lost, lost, times, frozenset())
    samples = {
        part: [Sample(float(second), second / 100, memory) for second in range(40)] for part in ("service", "oap")
    }
    answers = [(number / 100, 2.0) for number in range(100)]
    return Measured(step, tasks, failed, 2.0, p99, p99, found, 1.0, 20.0, 15.0, 5.0, 100.0, memory, answers, samples)


def verdicts(*steps: Measured, asleep: Measured | None = None) -> dict[str, Verdict]:
    claims = judge_load([10_002.0], [2.0], list(steps), asleep or measured(10_000, memory=300, fill=25))
    return {claim.name: claim for claim in claims}


def test_what_is_as_claimed_holds() -> None:
    found = verdicts(measured(), measured(10_000, p99=80, memory=350))
    assert all(claim.holds for claim in found.values()), found
    assert found["Concurrent capacity"].measured.startswith("10,000 tasks at once")
    assert found["Memory per task"].measured.startswith("20.5 KB with 10,000 tasks")


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("Response time", [measured(p99=101)]),
        ("Our aim: p99 with 1,000 running tasks", [measured(p99=26)]),
        ("Our aim: p99 with 10,000 running tasks", [measured(), measured(10_000, p99=101)]),
        ("Concurrent capacity", [measured(failed=1)]),
        ("Concurrent capacity", [measured(lost=1)]),
        ("Memory per task", [measured(memory=1101)]),
        ("Our aim: every trace complete in OAP", [measured(lost=1)]),
    ],
)
def test_what_is_not_as_claimed_does_not(name: str, steps: list[Measured]) -> None:
    assert not verdicts(*steps)[name].holds


def soaked(*, rises: float = 0.0, failed: int = 0) -> Soak:
    line = [Sample(float(second), 0.0, 150.0 + (second >= 75) * rises) for second in range(100)]
    return Soak(100, 6000, failed, {"service": line, "oap": []})


@pytest.mark.parametrize(
    ("found", "holds"),
    [(soaked(), True), (soaked(rises=29), True), (soaked(rises=31), False), (soaked(failed=1), False)],
)
def test_failures_that_leave_memory_behind_are_told(found: Soak, *, holds: bool) -> None:
    claim = judge_soak(found)
    assert claim.holds is holds
    assert "6,000 requests" in claim.measured


def test_a_soak_without_measurements_does_not_hold() -> None:
    assert not judge_soak(Soak(10, 600, 0, {"service": [], "oap": []})).holds


def test_the_picture_of_the_failures_is_in_the_report(tmp_path: Path) -> None:
    write(tmp_path, Page([], [measured()], measured(fill=5), "10.1.0", quick=False, seconds=60, failures=soaked()))
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 2
    assert "Memory while tasks are retried and die" in html
    assert "(failures.svg)" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "failures.svg").read_text().startswith("<?xml")


def test_the_pages_tell_all_of_it_and_need_no_other_file(tmp_path: Path) -> None:
    claims = [
        Verdict("Memory <per> task", "< 1 MB", "20 KB", holds=True),
        Verdict("CPU", "minimal", "99 %", holds=False),
    ]
    write(tmp_path, Page(claims, [measured(), measured(5000)], measured(fill=5), "10.1.0", quick=False, seconds=60))
    markdown, html = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "| CPU | minimal | 99 % | **does not hold** |" in markdown
    assert "| 5,000 | 500 | 5,000 | 0 | 2.0 | 8.0 |" in markdown
    assert "OAP 10.1.0" in markdown
    assert "Memory &lt;per&gt; task" in html
    assert html.count("<svg") == 1
    assert "src=" not in html
    assert "does not hold" in html
