"""The guided incidents: their table, the player, its record and its pictures. `tests/test_incidents.py` plays one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
from oap_query import Oap, OapAwayError, Span
from stack.incidents import incident, player, plays
from stack.incidents import stage as stage_module
from stack.incidents.drawn import lanes_as_text, legend
from stack.incidents.pictures import draw
from stack.incidents.player import folder_of, play
from stack.incidents.plays import PLAYS, Play, Seen
from stack.incidents.record import Lane, Piece, Side, Symptom
from stack.incidents.stage import PlayError, Stage
from stack.load import Sent
from stack.settings import ROOT, Settings, UsageError
from tracing_claims.incidents import BY_NAME, INCIDENTS, TONES

if TYPE_CHECKING:
    from pathlib import Path

LANES = (
    Lane("answer", "t1", (Piece(0, 0.1, "answer"),)),
    Lane("task", "t1", (Piece(0.1, 1, "wait"), Piece(1, 4, "task"))),
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a stack that does not run."""
    monkeypatch.setenv("RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("OAP_HTTP_PORT", "1")
    return Settings()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Stage, str]]:
    """Play nothing; note on which stages it would have been."""
    noted: list[tuple[Stage, str]] = []

    def run(stage: Stage, setting: str) -> Seen:
        noted.append((stage, setting))
        return Seen(Symptom("late", 6000.0 / len(noted), "ms", "a metric"), {"orders": "5"}, "t1", LANES)

    monkeypatch.setattr(Oap, "healthy", lambda _oap: True)
    monkeypatch.setattr(player, "PLAYS", dict.fromkeys(PLAYS, Play(run, 1)))
    return noted


def test_each_incident_is_told_and_played() -> None:
    assert [one.name for one in INCIDENTS] == list(PLAYS) == ["sequential", "threads", "neighbour", "killed"]
    for one in INCIDENTS:
        assert all((one.title, one.story, one.scale, one.symptom, one.search, one.switch))
        assert one.before != one.after
        assert one.before.partition("=")[0] == one.after.partition("=")[0], "one switch"


def test_the_makefile_knows_the_names() -> None:
    (names,) = re.findall(r"INCIDENT := \$\(filter ([a-z ]+),", (ROOT / "Makefile").read_text())
    assert names.split() == list(BY_NAME)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_both_sides_have_the_same_stage_but_for_the_switch(
    settings: Settings, stages: list[tuple[Stage, str]], name: str
) -> None:
    said: list[str] = []
    record = play(settings, BY_NAME[name], said.append)
    assert [setting for _, setting in stages] == [BY_NAME[name].before, BY_NAME[name].after]
    (before, _), (after, _) = stages
    variable = BY_NAME[name].before.partition("=")[0]
    assert {key for key, _ in set(before.variables.items()) ^ set(after.variables.items())} <= {variable}
    assert before.folder != after.folder
    assert (before.service, after.service) == (f"demo-service-{name}-before", f"demo-service-{name}-after")
    assert len(said) == 2
    assert record.before
    assert record.after
    noted = json.loads((folder_of(settings, name) / "run.json").read_text())
    assert (noted["state"], noted["step"]) == ("done", "")
    assert noted["before"]["symptom"]["value"] == 6000
    assert noted["after"]["lanes"][1]["pieces"][1] == {"start": 1, "end": 4, "tone": "task"}


def test_a_run_is_noted_as_it_goes_and_when_it_fails(
    settings: Settings, stages: list[tuple[Stage, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []
    path = folder_of(settings, "killed") / "run.json"
    run = player.PLAYS["killed"].run

    def then_fail(stage: Stage, setting: str) -> Seen:
        seen.append(json.loads(path.read_text()))
        if len(seen) == 2:
            raise OapAwayError("OAP is gone")
        return run(stage, setting)

    monkeypatch.setattr(player, "PLAYS", {"killed": Play(then_fail, 1)})
    with pytest.raises(PlayError, match="OAP is gone"):
        play(settings, BY_NAME["killed"], lambda _sentence: None)
    assert [(one["state"], bool(one["before"])) for one in seen] == [("running", False), ("running", True)]
    noted = json.loads(path.read_text())
    assert (noted["state"], noted["step"], bool(noted["before"])) == ("failed", "OAP is gone", True)
    assert len(stages) == 1


def test_a_service_that_does_not_answer_is_told_with_its_log(
    settings: Settings, stages: list[tuple[Stage, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_stage: Stage, _setting: str) -> Seen:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(player, "PLAYS", {"killed": Play(run, 1)})
    with pytest.raises(PlayError, match=r"service does not answer \(refused\): its log is in .*/incidents/killed"):
        play(settings, BY_NAME["killed"], lambda _sentence: None)
    assert not stages


@pytest.fixture
def stage(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage whose OAP has half of everything."""
    oap = Oap("http://127.0.0.1:1")
    monkeypatch.setattr(oap, "trace", lambda trace_id: [span("task", 1, 2)] if trace_id == "t1" else [])
    monkeypatch.setattr(stage_module, "read", lambda _oap, wanted, _began: [{} for _ in wanted])
    monkeypatch.setattr(stage_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(stage_module, "METRIC_SECONDS", 0.1)
    return Stage(settings, oap, tmp_path, "demo-service-killed-before", {})


def test_what_does_not_arrive_is_told_and_not_drawn_as_nothing(stage: Stage) -> None:
    sent = [Sent(1, 1, 200, "t1"), Sent(1, 1, 200, "t2")]
    assert set(stage.traces(sent[:1], bool)) == {"t1"}
    with pytest.raises(PlayError, match="1 of 2 traces were not complete in OAP"):
        stage.traces(sent, bool, 0.1)
    with pytest.raises(PlayError, match="endpoint_sla of demo-service-killed-before were not complete in OAP"):
        stage.metric(["endpoint_sla"], lambda found: bool(found[0]))


def test_a_metric_is_read_when_it_is_of_all_requests(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(
        [*[[{1: 3.0}, {1: 1.0}]] * 3, [{1: 3.0}, {1: 1.0, 2: 10.0}], *[[{1: 3.0, 2: 900.0}, {1: 1.0, 2: 10.0}]] * 2]
    )
    monkeypatch.setattr(stage_module, "read", lambda _oap, _wanted, _began: next(looks))
    monkeypatch.setattr(stage_module, "METRIC_SECONDS", 10)
    found = stage.metric(["endpoint_resp_time", "endpoint_cpm"], plays._counted(11), "HTTP GET /plain")
    assert found == [[3.0, 900.0], [1.0, 10.0]]


def test_without_an_oap_one_sentence_says_so(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert incident(settings, "threads") == 1
    said = capsys.readouterr().out
    assert "it can't go on: OAP at http://127.0.0.1:1 does not answer: `make up` starts one" in said
    assert json.loads((folder_of(settings, "threads") / "run.json").read_text())["state"] == "failed"


def test_without_a_name_they_are_listed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert incident(settings) == 0
    said = capsys.readouterr().out
    for one in INCIDENTS:
        assert re.search(rf"^{one.name} +{one.title} ", said, re.MULTILINE)
    with pytest.raises(UsageError, match="no incident 'flood': they are sequential, threads, neighbour, killed"):
        incident(settings, "flood")


def span(name: str, start: int, end: int, *, refs: bool = True, **tags: str) -> Span:
    reference = (("s", 0, "CROSS_THREAD"),) if refs else ()
    kind = "Local" if refs else "Entry"
    return Span(
        "t1", f"s-{name}", 0, -1, reference, "demo", "one", name, kind, "", "", "", "task_outcome" in tags, start, end,
        {key.replace("_", "."): value for key, value in tags.items()}, (),
    )  # fmt: skip


def test_a_trace_is_drawn_with_the_waits_before_its_tasks() -> None:
    spans = [
        span("HTTP POST /complex-action", 1_000, 1_002, refs=False),
        span("task2", 4_002, 7_002, task_id="b"),
        span("task1", 1_002, 4_002, task_id="a"),
    ]
    request, first, second = plays._tree_lanes(spans, 1_000)
    assert [lane.label for lane in (request, first, second)] == ["HTTP POST /complex-action", "task1", "task2"]
    assert [piece.tone for piece in second.pieces] == ["wait", "task"]
    assert second.pieces[0].end == pytest.approx(3.002)
    assert second.pieces[1].end == pytest.approx(6.002)


def test_attempts_have_pauses_between_them() -> None:
    sent = Sent(1_000, 2, 200, "t1")
    spans = [span("attempt 2", 4_000, 5_000, task_attempt="2"), span("attempt 1", 1_500, 2_500, task_attempt="1")]
    pieces = plays._attempts(spans, sent, 1_000)
    assert [piece.tone for piece in pieces] == ["wait", "failed", "wait", "failed"]
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 0.5), (0.5, 1.5), (1.5, 3.0), (3.0, 4.0)]


def test_a_killed_task_is_lost_unless_its_trace_says_that_it_crashed() -> None:
    sent = Sent(1_000, 2, 200, "t1")
    entry = span("HTTP GET /test", 1_000, 1_002, refs=False)
    (lost,) = plays._until_kill({"t1": [entry]}, sent, 1_000, 5_000)
    assert (lost.tone, lost.end) == ("lost", 4.0)
    crashed = span("background_sleep_task", 1_002, 4_800, task_id="a", task_outcome="crashed")
    (told,) = plays._until_kill({"t1": [entry, crashed]}, sent, 1_000, 5_000)
    assert told.tone == "crashed"
    assert told.end == pytest.approx(3.8)


def test_the_lanes_in_a_terminal_are_on_one_scale_and_some_stand_for_many() -> None:
    few = Side("mode=a", "demo", Symptom("late", 1, "ms", "x"), {}, "t1", LANES)
    first, second, axis = lanes_as_text(few, 8.0, 66).plain.splitlines()
    assert first == f"{'answer':26}▌{' ' * 39}"
    assert second == f"{'task':26}{'·' * 5}{'━' * 15}{' ' * 20}"
    assert axis.endswith("8.0 s")
    many = lanes_as_text(replace(few, lanes=LANES * 20), 8.0, 66).plain.splitlines()
    assert len(many) == 16
    assert many[-2] == "(1 of 3 is drawn, of 40)"
    assert legend((few,)).plain.split("   ")[:3] == [
        f"{sign} {TONES[tone]}" for sign, tone in (("▌", "answer"), ("·", "wait"), ("━", "task"))
    ]


def test_a_picture_is_drawn_of_few_and_of_many_lanes(tmp_path: Path) -> None:
    every = tuple(Piece(number, number + 1, tone) for number, tone in enumerate(TONES))  # type: ignore[arg-type]
    few = Side("mode=a", "demo", Symptom("late", 1, "ms", "x"), {}, "t1", (*LANES, Lane("all", "t1", every)))
    many = Side("mode=b", "demo", Symptom("late", 1, "ms", "x"), {}, "t1", LANES * 40)
    draw(INCIDENTS[0], few, many, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
