"""The work as messages, on real brokers: one trace, and nothing lost, whatever dies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from harness import OapServer, eventually
from oap_query import build, outline
from test_traces import read_trace
from work_stack import Works, run

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = """
Entry HTTP GET /test/queue 200
  Local FastAPI request handling 200
    Exit demo.queue publish
      Entry demo.queue CROSS_PROCESS{failed}"""


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def works(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, oap: OapServer) -> Iterator[Works]:
    with run(request.param, tmp_path_factory.mktemp("queue"), oap.grpc, "consumer") as found:
        yield found


def test_it_is_one_trace(works: Works, oap: OapServer) -> None:
    (answer,) = works.send("/test/queue", 1, duration=0.1)
    assert answer.json() == "ok"
    tree = TREE.format(failed="").strip()
    spans = read_trace(oap, answer.headers["X-Trace-Id"], tree)
    assert outline(build(spans)) == tree
    (task,) = (span for span in spans if span.name == "demo.queue")
    assert task.tags["mq.queue"] == "demo.queue"
    assert int(task.tags["transmission.latency"]) >= 0


def test_computing_does_not_hold_up_the_others(works: Works) -> None:
    before = len(works.count("queue").accepted)
    works.send("/test/queue", 2, duration=1, work="cpu")
    works.send("/test/queue", 5, duration=0)
    assert works.wait_until_done("queue", before + 7).lost == set()


def test_a_retry_is_no_error(works: Works, oap: OapServer) -> None:
    answer = works.client.get("/test/queue?duration=0", headers={"X-Fault": "error;times=1"})
    tree = TREE.format(failed="").strip()
    spans = read_trace(oap, answer.headers["X-Trace-Id"], tree)
    assert outline(build(spans)) == tree
    (task,) = (span for span in spans if span.name == "demo.queue")
    assert task.tags["task.attempts"] == "2"


def test_what_fails_for_good_is_a_dead_letter(works: Works, oap: OapServer) -> None:
    answer = works.client.get("/test/queue?duration=0", headers={"X-Fault": "error"})
    trace_id = answer.headers["X-Trace-Id"]
    (letter,) = eventually(lambda: works.letters(trace_id), 60)
    assert (letter["name"], letter["attempts"], letter["reason"]) == ("queue_sleep", 3, "failed")
    tree = TREE.format(failed=" failed").strip()
    assert outline(build(read_trace(oap, trace_id, tree))) == tree
    assert works.count("queue").lost == set()
    replayed = works.client.post(f"/dead-letters/{letter['id']}/replay")
    assert replayed.status_code == 202
    assert eventually(lambda: replayed.json()["task_id"] in works.count("queue").done, 60)


def test_nothing_is_lost_when_the_consumer_is_killed(works: Works) -> None:
    before = len(works.count("queue").accepted)
    works.send("/test/queue", 20, duration=3)
    works.consumer.kill()
    assert works.count("queue").lost  # else nothing was under way
    works.consumer.start()
    assert works.wait_until_done("queue", before + 20).lost == set()


def test_what_runs_when_the_consumer_ends_is_done_once(works: Works) -> None:
    before = len(works.count("queue").accepted)
    twice = works.count("queue").done_twice
    works.send("/test/queue", 10, duration=2)
    assert works.consumer.terminate() == 0
    works.consumer.start()
    found = works.wait_until_done("queue", before + 10)
    assert (found.lost, found.done_twice) == (set(), twice)


def test_nothing_is_lost_when_the_broker_dies(works: Works) -> None:
    before = len(works.count("queue").accepted)
    works.send("/test/queue", 20, duration=1)
    works.broker.kill()
    began = time.monotonic()
    answer = works.client.get("/test/queue?duration=0")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "the broker does not answer" in answer.json()["detail"]
    assert time.monotonic() - began < 20
    works.broker.start()
    eventually(lambda: works.client.get("/test/queue?duration=0").status_code == 200, 60)
    assert works.wait_until_done("queue", before + 21).lost == set()
