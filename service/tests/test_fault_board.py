"""The fault board: a rule strikes a share of the requests, the same ones for the same seed, and expires by itself."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from demo_service.tasks import FaultBoard, Rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from skywalking.trace.span import Span

    from conftest import NewService, Service

ERRORS: dict[str, Any] = {"faults": ["error"], "share": 1}


def rule(**changed: Any) -> Rule:
    values = {
        "faults": ("error",),
        "share": 0.3,
        "seconds": 60.0,
        "seed": 7,
        "schedule": "steady",
        "set_at": time.time(),
    }
    return Rule(**{**values, **changed})


def tags(span: Span) -> dict[str, str]:
    return {tag.key: tag.val for tag in span.iter_tags()}


def struck(board: FaultBoard, count: int) -> list[str]:
    return [fault.text if (fault := board.draw()) else "" for _ in range(count)]


def test_the_same_seed_strikes_the_same_requests_and_another_one_others(tmp_path: Path) -> None:
    board = FaultBoard(tmp_path / "faults", enabled=True)
    found: dict[int, list[str]] = {}
    for seed in (7, 8, 7):
        board.put(rule(seed=seed, faults=("error", "delay=1ms")))
        drawn = struck(board, 400)
        assert found.setdefault(seed, drawn) == drawn
        counts = Counter(drawn)
        assert 80 < counts["error"] + counts["delay=1ms"] < 160, "about 30 % of 400"
        assert min(counts["error"], counts["delay=1ms"]) > 30
        assert board.counts() == (400, 400 - counts[""])
    assert found[7] != found[8]


def test_processes_share_the_rule_and_the_count(tmp_path: Path) -> None:
    alone, *several = [FaultBoard(tmp_path / "faults", enabled=True) for _ in range(4)]
    alone.put(rule())
    expected = struck(alone, 90)
    several[0].put(rule())
    assert [struck(several[number % 3], 1)[0] for number in range(90)] == expected
    assert {board.counts() for board in several} == {several[0].counts()}
    several[1].clear()
    assert struck(several[2], 20) == [""] * 20


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 200)])
def test_the_ends_of_the_share(tmp_path: Path, share: float, expected: int) -> None:
    board = FaultBoard(tmp_path / "faults", enabled=True)
    board.put(rule(share=share))
    assert sum(map(bool, struck(board, 200))) == expected


def test_the_random_schedule_is_one_fault_a_span_and_quiet_between_them() -> None:
    faults = ("error", "hang", "delay=1ms")
    one, other = (rule(schedule="random", seconds=600.0, set_at=1000.0, seed=seed, faults=faults) for seed in (1, 2))
    moments = [one.at(1000 + second / 10) for second in range(6000)]
    assert moments == [replace(one, set_at=5000.0).at(5000 + second / 10) for second in range(6000)]
    assert {len(found) for found in moments} == {0, 1}
    assert {name for found in moments for name in found} == set(faults)
    assert one.spans != other.spans
    assert one.at(1600.1) == ()


def test_what_is_not_enabled_never_strikes(tmp_path: Path) -> None:
    FaultBoard(tmp_path / "faults", enabled=True).put(rule(share=1.0))
    assert not any(struck(FaultBoard(tmp_path / "faults", enabled=False), 50))


@pytest.mark.parametrize(
    "changed",
    [
        *({"faults": wrong} for wrong in (1, None, ["flood"], [1])),
        *({"share": wrong} for wrong in ("x", math.nan, math.inf, 2, -1, None)),
        *({"seconds": wrong} for wrong in (0, 1e9, "x")),
        {"seed": "x"},
        {"schedule": "never"},
        {"set_at": []},
        "{",
        "",
        "[]",
        "{}",
    ],
)
def test_a_broken_rule_strikes_nothing_and_says_so_once(
    tmp_path: Path, changed: str | dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    board = FaultBoard(tmp_path, enabled=True)
    text = changed if isinstance(changed, str) else json.dumps({**asdict(rule(share=1.0)), **changed})
    (tmp_path / "rule.json").write_text(text)
    assert struck(board, 5) == [""] * 5
    assert caplog.text.count("The rule of the fault board can't be read") == 1
    board.put(rule(share=1.0))
    assert struck(board, 1) == ["error"]


def test_a_count_that_can_not_be_kept_strikes_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = FaultBoard(tmp_path, enabled=True)
    found = rule(share=1.0)
    board.put(found)
    (tmp_path / f"seen-{found.set_at:.6f}").mkdir()
    assert struck(board, 3) == [""] * 3
    assert caplog.text.count("can't count requests") == 1


async def test_a_rule_strikes_tasks_and_is_seen_in_the_trace_and_the_log(
    service: Service, spans: Callable[[str], list[Span]], caplog: pytest.LogCaptureFixture
) -> None:
    answer = await service.put("/faults", json={**ERRORS, "seconds": 60, "seed": 3})
    assert answer.status_code == 200
    assert "audit: set of fault board by " in caplog.text
    assert "faults error, share 1" in caplog.text
    assert (await service.get("/test")).status_code == 200
    (letter,) = await service.letters()
    assert letter["error"]["message"].startswith("fault board: attempt 3 fails on purpose")
    (task,) = spans("background_sleep_task")
    assert tags(task)["fault.from"] == "fault board"
    (handling,) = [one for one in spans("FastAPI request handling") if "fault" in tags(one)]
    assert (tags(handling)["fault"], tags(handling)["fault.from"]) == ("error", "fault board")
    board = (await service.get("/faults")).json()
    assert (board["requests"], board["struck"], board["now"]) == (1, 1, ["error"])
    assert 0 < board["remaining_seconds"] <= 60
    cleared = (await service.delete("/faults")).json()
    assert cleared["rule"] is None
    assert "audit: clear of fault board by " in caplog.text
    await service.get("/test")
    assert len(await service.letters()) == 1


async def test_a_request_with_a_fault_of_its_own_keeps_it(service: Service, spans: Callable[[str], list[Span]]) -> None:
    await service.put("/faults", json=ERRORS)
    await service.get("/test", headers={"X-Fault": "delay=1ms"})
    assert await service.letters() == []
    (task,) = spans("background_sleep_task")
    assert "fault.from" not in tags(task)
    assert (await service.get("/faults")).json()["requests"] == 0


async def test_a_rule_expires_by_itself(service: Service) -> None:
    await service.put("/faults", json={**ERRORS, "seconds": 1})
    async with asyncio.timeout(20):
        while (await service.get("/faults")).json()["rule"] is not None:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
    await service.get("/test")
    assert await service.letters() == []


async def test_a_rule_survives_a_restart(new_service: NewService) -> None:
    await (await new_service()).put("/faults", json=ERRORS)
    again = await new_service()
    await again.get("/test")
    assert len(await again.letters()) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"faults": []}, "body.faults"),
        ({"faults": ["flood"]}, "body.faults.0"),
        ({"faults": "error"}, "body.faults"),
        ({"share": 1.01}, "body.share"),
        ({"share": -0.1}, "body.share"),
        ({"share": "0.5"}, "body.share"),
        ({"share": None}, "body.share"),
        ({"seconds": 0}, "body.seconds"),
        ({"seconds": 3601}, "body.seconds"),
        ({"seed": -1}, "body.seed"),
        ({"seed": 1.5}, "body.seed"),
        ({"seed": True}, "body.seed"),
        ({"schedule": "sometimes"}, "body.schedule"),
        ({"shared": 1}, "body.shared"),
    ],
)
async def test_a_rule_that_is_not_valid_is_refused_with_the_field(
    service: Service, changed: dict[str, Any], said: str
) -> None:
    answer = await service.put("/faults", json={**ERRORS, **changed})
    assert answer.status_code == 422
    assert [error["where"] for error in answer.json()["errors"]] == [said]
    assert (await service.get("/faults")).json()["rule"] is None


async def test_a_service_without_faults_refuses_a_rule(new_service: NewService) -> None:
    service = await new_service(faults_enabled=False)
    answer = await service.put("/faults", json=ERRORS)
    assert answer.status_code == 403
    assert "SERVICE_FAULTS_ENABLED=true" in answer.json()["detail"]
    assert (await service.get("/faults")).json()["enabled"] is False


async def test_a_folder_that_can_not_be_written_is_told(service: Service, tmp_path: Path) -> None:
    (tmp_path / "faults").write_text("not a folder")
    answer = await service.put("/faults", json=ERRORS)
    assert answer.status_code == 503
    assert "it can't be noted for the other processes" in answer.json()["detail"]
    assert (await service.get("/test")).status_code == 200
