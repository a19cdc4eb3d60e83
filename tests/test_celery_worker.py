"""The work as Celery tasks, on real brokers: one trace, and nothing lost, whatever dies."""

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
Entry HTTP GET /test/celery 200
  Local FastAPI request handling 200
    Exit celery/celery_sleep
      Entry celery/celery_sleep CROSS_PROCESS{failed}"""
RETRIED = """
        Exit celery/celery_sleep
          Entry celery/celery_sleep CROSS_PROCESS"""


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def works(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, oap: OapServer) -> Iterator[Works]:
    with run(request.param, tmp_path_factory.mktemp("celery"), oap.grpc, "worker") as found:
        yield found


def test_it_is_one_trace(works: Works, oap: OapServer) -> None:
    (answer,) = works.send("/test/celery", 1, duration=0.1)
    assert answer.json() == "ok"
    tree = TREE.format(failed="").strip()
    spans = read_trace(oap, answer.headers["X-Trace-Id"], tree)
    assert outline(build(spans)) == tree
    task = spans[-1] if spans[-1].name == "celery/celery_sleep" else spans[-2]
    assert task.tags["mq.queue"] == "demo.celery"


def test_computing_is_work_too(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 1, duration=0.1, work="cpu")
    assert works.wait_until_done("celery", before + 1).lost == set()


def test_a_retry_is_no_error(works: Works, oap: OapServer) -> None:
    answer = works.client.get("/test/celery?duration=0", headers={"X-Fault": "error;times=1"})
    tree = (TREE.format(failed="") + RETRIED).strip()
    spans = read_trace(oap, answer.headers["X-Trace-Id"], tree)
    assert outline(build(spans)) == tree


def test_what_fails_for_good_is_a_dead_letter(works: Works) -> None:
    answer = works.client.get("/test/celery?duration=0", headers={"X-Fault": "error"})
    trace_id = answer.headers["X-Trace-Id"]
    (letter,) = eventually(lambda: works.letters(trace_id), 60)
    assert (letter["name"], letter["attempts"], letter["reason"]) == ("celery_sleep", 3, "failed")
    assert works.count("celery").lost == set()
    replayed = works.client.post(f"/dead-letters/{letter['id']}/replay")
    assert replayed.status_code == 202
    assert eventually(lambda: replayed.json()["task_id"] in works.count("celery").done, 60)


def test_work_that_kills_its_process_is_a_dead_letter_in_the_end(works: Works) -> None:
    answer = works.client.get("/test/celery?duration=0", headers={"X-Fault": "exit"})
    trace_id = answer.headers["X-Trace-Id"]
    (letter,) = eventually(lambda: works.letters(trace_id), 200)
    assert (letter["name"], letter["reason"]) == ("celery_sleep", "interrupted")
    assert works.count("celery").lost == set()


def test_nothing_is_lost_when_the_worker_is_killed(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 20, duration=0.5)
    eventually(lambda: len(works.count("celery").done) > before)
    works.worker.kill()
    assert works.count("celery").lost  # else nothing was under way
    works.worker.start()
    assert works.wait_until_done("celery", before + 20).lost == set()


def test_nothing_is_lost_when_a_process_of_the_pool_is_killed(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 8, duration=1)
    eventually(lambda: len(works.count("celery").done) > before)
    for process in works.worker.family()[1:3]:
        process.kill()
    assert works.wait_until_done("celery", before + 8).lost == set()


def test_nothing_is_lost_when_the_worker_ends(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 12, duration=1)
    eventually(lambda: len(works.count("celery").done) > before)
    works.worker.terminate()
    assert works.count("celery").lost  # it does not work off the whole queue
    twice = works.count("celery").done_twice
    works.worker.start()
    found = works.wait_until_done("celery", before + 12)
    assert found.lost == set()
    assert found.done_twice == twice


def test_nothing_is_lost_when_the_broker_dies(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 20, duration=0.5)
    works.broker.kill()
    began = time.monotonic()
    answer = works.client.get("/test/celery?duration=0")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "the broker does not answer" in answer.json()["detail"]
    assert time.monotonic() - began < 20
    works.broker.start()
    eventually(lambda: works.client.get("/test/celery?duration=0").status_code == 200, 60)
    assert works.wait_until_done("celery", before + 21).lost == set()
