"""The frames of a flame picture, and the profile that they are made of."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tracing_console.data import Service, ServiceError, TaskProfile, frames, split

ANSWER: dict[str, Any] = {
    "task": "resize",
    "seconds": 5,
    "rounds": 100,
    "tasks": 2,
    "stacks": [
        {"lines": ["app.py:resize:10", "http.py:Client.get:3"], "samples": 60},
        {"lines": ["app.py:resize:10", "lock.py:Lock.acquire:7"], "samples": 30},
        {"lines": ["app.py:resize:12"], "samples": 10},
    ],
    "waits": [{"line": "http.py:Client.get:3", "samples": 60}],
    "collapsed": "app.py:resize:10;http.py:Client.get:3 60",
}


def test_frames_are_as_wide_as_their_share_and_below_their_callers() -> None:
    profile = TaskProfile.of(ANSWER)
    assert profile.samples == 100
    drawn = {(one.function, one.place): one for one in frames(profile.stacks)}
    outer = drawn["resize", "app.py:10"]
    assert (outer.left, outer.samples, outer.depth, outer.sits) == (0, 90, 0, 0)
    first, second = drawn["Client.get", "http.py:3"], drawn["Lock.acquire", "lock.py:7"]
    assert (first.left, first.samples, first.depth, first.sits) == (0, 60, 1, 60)
    assert (second.left, second.samples, second.depth, second.sits) == (60, 30, 1, 30)
    other = drawn["resize", "app.py:12"]
    assert (other.left, other.samples, other.depth, other.sits) == (90, 10, 0, 10)


def test_a_line_that_tasks_sat_in_and_went_on_from_has_both() -> None:
    (outer, inner) = frames([(("a.py:f:1",), 3), (("a.py:f:1", "b.py:g:2"), 4)])
    assert (outer.samples, outer.sits, inner.samples, inner.sits) == (7, 3, 4, 4)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jobs.py:Mailer.send:30", ("Mailer.send", "jobs.py:30")),
        ("jobs.py:f.<locals>.<lambda>:30", ("f.<locals>.<lambda>", "jobs.py:30")),
        ("no place", ("no place", "")),
        ("", ("", "")),
    ],
)
def test_a_line_is_a_function_and_its_place(line: str, expected: tuple[str, str]) -> None:
    assert split(line) == expected


def service(answer: httpx.Response) -> Service:
    made = Service("http://127.0.0.1:1")
    made._client = httpx.AsyncClient(base_url=made.url, transport=httpx.MockTransport(lambda _: answer))
    return made


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, json={"task": "resize"}), "something that is no profile"),
        (httpx.Response(200, json=[]), "something that is no profile"),
        (httpx.Response(403, json={"detail": "profiling is switched off here"}), "403: profiling is switched off here"),
    ],
)
async def test_an_answer_that_is_no_profile_is_said(answer: httpx.Response, said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        await service(answer).profile("resize", 1)


async def test_a_profile_is_read() -> None:
    found = await service(httpx.Response(200, json=ANSWER)).profile("resize", 1)
    assert found == TaskProfile.of(ANSWER)
