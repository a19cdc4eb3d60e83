from __future__ import annotations

from oap_query import Segment
from tracing_console.data import claims, most_at_once


def segment(name: str, start: int, duration: int) -> Segment:
    return Segment("t", f"{name}{start}", name, start, duration, error=False, request=name.startswith("HTTP"))


def verdicts(segments: list[Segment], running: int = 0, cpu_percent: float | None = None) -> dict[str, str]:
    return {claim.metric: claim.verdict for claim in claims(segments, running, cpu_percent)}


ANSWERS = [segment("HTTP GET /test", number, 2) for number in range(100)]
TASKS = [segment("background_sleep_task", number, 10_001) for number in range(1000)]


def test_what_was_measured_holds() -> None:
    found = verdicts(ANSWERS + TASKS, cpu_percent=3)
    assert [found[name] for name in ("Response time", "Background task duration", "Time saved per request")] == [
        "holds",
        "holds",
        "holds",
    ]
    assert found["Concurrent capacity"] == "holds"
    assert found["CPU usage"] == "holds"


def test_slow_answers_and_slow_tasks_do_not_hold() -> None:
    slow = [segment("HTTP GET /test", 0, 400)] * 2 + [segment("background_sleep_task", 0, 11_000)]
    found = verdicts(slow)
    assert found["Response time"] == "does not hold"
    assert found["Background task duration"] == "does not hold"
    assert verdicts([segment("HTTP GET /test", 0, 200), segment("background_sleep_task", 0, 10_000)])[
        "Time saved per request"
    ] == "does not hold"  # fmt: skip


def test_what_was_not_tried_is_not_judged() -> None:
    assert all("holds" not in verdict for verdict in verdicts([]).values())
    short = verdicts([*ANSWERS, segment("background_sleep_task", 0, 2000)])
    assert short["Background task duration"] == "only shorter tasks were requested"
    assert short["Concurrent capacity"].startswith("not tried")


def test_running_tasks_count_for_the_capacity() -> None:
    assert verdicts([], running=1000)["Concurrent capacity"] == "holds"


def test_tasks_one_after_the_other_never_run_at_once() -> None:
    assert most_at_once([segment("a", 0, 5), segment("b", 5, 5), segment("c", 7, 1), segment("HTTP x", 0, 99)]) == 2
