"""Work sent to a Celery worker and to a consumer, on real brokers: one trace, and nothing lost, whatever dies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from harness import OapServer, eventually
from oap_query import build, outline
from test_traces import read_trace
from work_stack import Part, Works, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Span


@dataclass(frozen=True)
class Way:
    """One way from a request over a broker to whoever does the work."""

    variant: str
    part: str
    queue: str
    work: str
    """What the dead letters of it are named."""
    entry: str
    """The name of the worker's entry span."""
    sent: str
    """The spans below the request's; `failed` where the work failed for good."""
    again: str = ""
    """What a retry adds: Celery sends a message to itself, the consumer tries again within the same span."""

    @property
    def path(self) -> str:
        return f"/test/{self.variant}"

    def tree(self, failed: str = "", again: str = "") -> str:
        request = f"Entry HTTP GET {self.path} 200\n  Local FastAPI request handling 200"
        return request + self.sent.format(failed=failed) + again


CELERY = Way(
    variant="celery",
    part="worker",
    queue="demo.celery",
    work="celery_sleep",
    entry="celery/celery_sleep",
    sent="\n    Exit celery/celery_sleep\n      Entry celery/celery_sleep CROSS_PROCESS{failed}",
    again="\n        Exit celery/celery_sleep\n          Entry celery/celery_sleep CROSS_PROCESS",
)
QUEUE = Way(
    variant="queue",
    part="consumer",
    queue="demo.queue",
    work="queue_sleep",
    entry="demo.queue",
    sent="\n    Exit demo.queue publish\n      Entry demo.queue CROSS_PROCESS{failed}",
)
WAYS = {"celery": CELERY, "queue": QUEUE}
STACKS = ("celery_redis", "celery_rabbitmq", "queue_redis", "queue_rabbitmq")


def only(variant: str) -> pytest.MarkDecorator:
    """Run a test with one of the ways alone."""
    stacks = [name for name in STACKS if name.startswith(variant)]
    return pytest.mark.parametrize("works", stacks, indirect=True, scope="module")


@pytest.fixture(scope="module", params=STACKS)
def works(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, oap: OapServer) -> Iterator[Works]:
    variant, broker = request.param.split("_")
    with run(broker, tmp_path_factory.mktemp(variant), oap.grpc, WAYS[variant].part) as found:
        yield found


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.node.callspec.params["works"].split("_")[0]]


@pytest.fixture
def part(works: Works, way: Way) -> Part:
    """Who does the work."""
    return {"worker": works.worker, "consumer": works.consumer}[way.part]


def entries(spans: list[Span], way: Way) -> list[Span]:
    return [span for span in spans if span.kind == "Entry" and span.name == way.entry]


def test_it_is_one_trace(works: Works, way: Way, oap: OapServer) -> None:
    (answer,) = works.send(way.path, 1, duration=0.1)
    assert answer.json() == "ok"
    spans = read_trace(oap, answer.headers["X-Trace-Id"], way.tree())
    assert outline(build(spans)) == way.tree()
    (task,) = entries(spans, way)
    assert task.tags["mq.queue"] == way.queue
    assert int(task.tags["transmission.latency"]) >= 0


@only("celery")
def test_computing_is_work_too(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 1, duration=0.1, work="cpu")
    assert works.wait_until_done("celery", before + 1).lost == set()


@only("queue")
def test_computing_does_not_hold_up_the_others(works: Works) -> None:
    before = len(works.count("queue").accepted)
    works.send("/test/queue", 2, duration=1, work="cpu")
    works.send("/test/queue", 5, duration=0)
    assert works.wait_until_done("queue", before + 7).lost == set()


def test_a_retry_is_no_error(works: Works, way: Way, oap: OapServer) -> None:
    answer = works.client.get(f"{way.path}?duration=0", headers={"X-Fault": "error;times=1"})
    tree = way.tree(again=way.again)
    spans = read_trace(oap, answer.headers["X-Trace-Id"], tree)
    assert outline(build(spans)) == tree
    if way is QUEUE:
        (task,) = entries(spans, way)
        assert task.tags["task.attempts"] == "2"


def test_what_fails_for_good_is_a_dead_letter(works: Works, way: Way, oap: OapServer) -> None:
    answer = works.client.get(f"{way.path}?duration=0", headers={"X-Fault": "error"})
    trace_id = answer.headers["X-Trace-Id"]
    (letter,) = eventually(lambda: works.letters(trace_id), 60)
    assert (letter["name"], letter["attempts"], letter["reason"]) == (way.work, 3, "failed")
    if way is QUEUE:  # Celery's has an entry for each attempt
        tree = way.tree(failed=" failed")
        assert outline(build(read_trace(oap, trace_id, tree))) == tree
    assert works.count(way.variant).lost == set()
    replayed = works.client.post(f"/dead-letters/{letter['id']}/replay")
    assert replayed.status_code == 202
    assert eventually(lambda: replayed.json()["task_id"] in works.count(way.variant).done, 60)


@only("celery")
def test_work_that_kills_its_process_is_a_dead_letter_in_the_end(works: Works) -> None:
    answer = works.client.get("/test/celery?duration=0", headers={"X-Fault": "exit"})
    trace_id = answer.headers["X-Trace-Id"]
    (letter,) = eventually(lambda: works.letters(trace_id), 200)
    assert (letter["name"], letter["reason"]) == ("celery_sleep", "interrupted")
    assert works.count("celery").lost == set()


def test_nothing_is_lost_when_its_process_is_killed(works: Works, way: Way, part: Part) -> None:
    before = len(works.count(way.variant).accepted)
    works.send(way.path, 20, duration=3 if way is QUEUE else 0.5)  # the consumer works on all at once
    if way is CELERY:
        eventually(lambda: len(works.count("celery").done) > before)
    part.kill()
    assert works.count(way.variant).lost  # else nothing was under way
    part.start()
    assert works.wait_until_done(way.variant, before + 20).lost == set()


@only("celery")
def test_nothing_is_lost_when_a_process_of_the_pool_is_killed(works: Works) -> None:
    before = len(works.count("celery").accepted)
    works.send("/test/celery", 8, duration=1)
    eventually(lambda: len(works.count("celery").done) > before)
    for process in works.worker.family()[1:3]:
        process.kill()
    assert works.wait_until_done("celery", before + 8).lost == set()


@only("celery")
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


@only("queue")
def test_what_runs_when_the_consumer_ends_is_done_once(works: Works) -> None:
    before = len(works.count("queue").accepted)
    twice = works.count("queue").done_twice
    works.send("/test/queue", 10, duration=2)
    assert works.consumer.terminate() == 0
    works.consumer.start()
    found = works.wait_until_done("queue", before + 10)
    assert (found.lost, found.done_twice) == (set(), twice)


def test_nothing_is_lost_when_the_broker_dies(works: Works, way: Way) -> None:
    before = len(works.count(way.variant).accepted)
    works.send(way.path, 20, duration=1 if way is QUEUE else 0.5)
    works.broker.kill()
    began = time.monotonic()
    answer = works.client.get(f"{way.path}?duration=0")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "the broker does not answer" in answer.json()["detail"]
    assert time.monotonic() - began < 20
    works.broker.start()
    eventually(lambda: works.client.get(f"{way.path}?duration=0").status_code == 200, 60)
    assert works.wait_until_done(way.variant, before + 21).lost == set()
