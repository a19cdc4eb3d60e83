"""Alarms as OAP 10.4 sends them, and the profile of a task: what needs no OAP."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from demo_service.app import create_app
from fastapi.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = {"Authorization": "Bearer s3cret"}
FIRED = {
    "uuid": "1", "scopeId": 3, "scope": "ENDPOINT", "name": "mail in shop", "id0": "x", "id1": "",
    "ruleName": "background_dead_letters_rule", "alarmMessage": "dead", "startTime": 1_700_000_000_000,
    "recoveryTime": None, "tags": [{"key": "level", "value": "CRITICAL"}],
}  # fmt: skip


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("SERVICE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SERVICE_ALARM_SECRET", "s3cret")
    monkeypatch.setenv("SERVICE_PROFILING_ENABLED", "true")
    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        yield client


def alarms(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/alarms").json()["alarms"]
    return found


def test_an_alarm_is_kept_once_until_oap_says_that_it_is_over(client: TestClient) -> None:
    for _ in range(2):
        assert client.post("/alarms", json=[FIRED], headers=SECRET).status_code == 204
    (alarm,) = alarms(client)
    assert alarm == {
        "rule": FIRED["ruleName"], "name": "mail in shop", "scope": "ENDPOINT", "message": "dead", "level": "CRITICAL",
        "started_at": "2023-11-14T22:13:20Z", "recovered_at": None,
    }  # fmt: skip
    other = {**FIRED, "name": "report in shop"}
    over = {**FIRED, "recoveryTime": 1_700_000_060_000}
    assert client.post("/alarms", json=[other, over], headers=SECRET).status_code == 204
    newest, first = alarms(client)
    assert (newest["name"], newest["recovered_at"]) == ("report in shop", None)
    assert first["recovered_at"] == "2023-11-14T22:14:20Z"
    client.post("/alarms", json=[FIRED], headers=SECRET)  # again, later
    assert len(alarms(client)) == 3


@pytest.mark.parametrize("body", [{}, [{}], [{"ruleName": "x"}], [{**FIRED, "startTime": -1}], [{**FIRED, "tags": 1}]])
def test_what_is_no_alarm_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/alarms", json=body, headers=SECRET).status_code == 422
    assert not alarms(client)


def test_without_a_secret_nobody_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SERVICE_ALARM_SECRET", "")
    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        for headers in ({}, {"Authorization": "Bearer "}, SECRET):
            assert client.post("/alarms", json=[FIRED], headers=headers).status_code == 403


def test_a_profile_says_what_a_task_waits_for(client: TestClient) -> None:

    thread = threading.Thread(target=client.get, args=("/test?duration=2",))
    thread.start()
    time.sleep(0.3)
    answer = client.post("/profiles?task=background_sleep_task&seconds=0.5")
    thread.join()
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["tasks"] == 1
    assert found["waits"][0]["line"].startswith("tasks.py:sleep:")
    assert found["stacks"][0]["lines"][-1] == found["waits"][0]["line"]
    assert found["collapsed"].endswith(f" {found['stacks'][0]['samples']}")


def test_a_profile_is_made_only_where_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_DATA_DIR", str(tmp_path))
    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        answer = client.post("/profiles?task=x")
    assert answer.status_code == 403
    assert "SERVICE_PROFILING_ENABLED" in answer.json()["detail"]
