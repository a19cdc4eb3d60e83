from __future__ import annotations

from io import StringIO

from oap_query import Span, build
from rich.console import Console
from stack.verify.waterfall import waterfall


def span(ids: tuple[int, int], name: str, times: tuple[int, int]) -> Span:
    (number, parent), (start, end) = ids, times
    return Span(
        "t", "a", number, parent, (), "s", "i", name, "Local", "", "", "", error=False, start=start, end=end, tags={},
        logs=(),
    )  # fmt: skip


TRACE = [span((1, 0), "handling", (0, 2)), span((0, -1), "GET /", (0, 2)), span((2, 0), "task", (2, 1002))]


def test_the_waterfall_shows_start_and_duration() -> None:
    console = Console(file=StringIO(), width=100)
    console.print(waterfall(build(TRACE)))
    rows = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [row.split()[-3:-1] for row in rows[1:3]] == [["0", "2"], ["0", "2"]]
    assert "1,000" in rows[3]
    assert "━" * 39 in rows[3]


def test_nothing_is_drawn_of_nothing() -> None:
    assert waterfall([]).row_count == 0
