"""What Celery's tasks look like in SkyWalking, case by case: real brokers, real worker processes, real OAP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING
from uuid import uuid4

import brokers
import psutil
import pytest
from harness import OapServer, eventually, trace_ids, wait_until
from oap_query import Metric, build, instances, outline, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oap_query import Span

BIN = Path(sys.executable).parent
DEADLINE = 40.0  # s until a trace must be complete in OAP


@dataclass(frozen=True)
class Case:
    """What the client does, and the span tree that OAP must hold for it."""

    name: str
    tree: str
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Values by `span name/tag`, in the order in which the spans began."""
    only: frozenset[str] = frozenset()
    """The setups that can have it; by default all."""


DELAY = """
    Local {name}
      Exit celery/{task}
        Entry celery/{task} CROSS_PROCESS{more}"""
EVERYWHERE = ("delay", "failing", "retry", "chain", "work inside", "untraced")
"""What is tried on each of the pools; the rest on the default one only."""
KILLING = ("killed", "hard time limit")


def sent(name: str, task: str, more: str = "") -> str:
    return DELAY.format(name=name, task=task, more=more)


CASES = (
    Case(
        "delay",
        sent("delay", "add"),
        {
            "celery/add/mq.queue": ["celery", "celery"],
            "celery/add/task.outcome": ["succeeded"],
            "celery/add/task.attempt": ["1"],
            "celery/add/task.name": ["add"],
        },
    ),
    Case("declared before", sent("declared before", "early")),
    Case("countdown", sent("countdown", "add")),
    Case("by name", sent("by name", "add")),
    Case("another queue", sent("another queue", "add"), {"celery/add/mq.queue": ["films", "films"]}),
    Case("headers of the user's", sent("headers of the user's", "headed"), {"celery/headed/colour": ["green"]}),
    Case("protocol", "Local protocol"),
    Case("pydantic", sent("pydantic", "show"), {"celery/show/film": ["Brazil"]}),
    Case("failing", sent("failing", "failing", " failed"), {"celery/failing/task.outcome": ["failed"]}),
    Case(
        "retry",
        """
        Local retry
          Exit celery/flaky
            Entry celery/flaky CROSS_PROCESS
              Exit celery/flaky
                Entry celery/flaky CROSS_PROCESS""",
        {"celery/flaky/task.outcome": ["retried", "succeeded"], "celery/flaky/task.attempt": ["1", "2"]},
    ),
    Case(
        "retries exhausted",
        """
        Local retries exhausted
          Exit celery/flaky
            Entry celery/flaky CROSS_PROCESS
              Exit celery/flaky
                Entry celery/flaky CROSS_PROCESS failed""",
        {"celery/flaky/task.outcome": ["retried", "failed"]},
    ),
    Case(
        "retry by itself",
        """
        Local retry by itself
          Exit celery/flaky_by_itself
            Entry celery/flaky_by_itself CROSS_PROCESS
              Exit celery/flaky_by_itself
                Entry celery/flaky_by_itself CROSS_PROCESS""",
    ),
    Case("ignore", sent("ignore", "ignoring"), {"celery/ignoring/task.outcome": ["ignored"]}),
    Case("reject", sent("reject", "rejecting"), {"celery/rejecting/task.outcome": ["rejected"]}),
    Case(
        "replace",
        """
        Local replace
          Exit celery/replacing
            Entry celery/replacing CROSS_PROCESS
              Exit celery/add
                Entry celery/add CROSS_PROCESS""",
        {"celery/replacing/task.outcome": ["ignored"]},
    ),
    Case(
        "chain",
        """
        Local chain
          Exit celery/add
            Entry celery/add CROSS_PROCESS
              Exit celery/add
                Entry celery/add CROSS_PROCESS""",
    ),
    Case(
        "group",
        """
        Local group
          Exit celery/add
            Entry celery/add CROSS_PROCESS
          Exit celery/early
            Entry celery/early CROSS_PROCESS""",
    ),
    # The body is sent by the task that ended last.
    Case(
        "chord",
        """
        Local chord
          Exit celery/quick_add
            Entry celery/quick_add CROSS_PROCESS
          Exit celery/slow_add
            Entry celery/slow_add CROSS_PROCESS
              Exit celery/total
                Entry celery/total CROSS_PROCESS""",
        only=frozenset({"redis"}),  # where the results are kept
    ),
    Case(
        "link",
        """
        Local link
          Exit celery/add
            Entry celery/add CROSS_PROCESS
              Exit celery/add
                Entry celery/add CROSS_PROCESS""",
    ),
    Case(
        "work inside",
        """
        Local work inside
          Exit celery/working
            Entry celery/working CROSS_PROCESS
              Local piece
                Exit celery/add
                  Entry celery/add CROSS_PROCESS""",
    ),
    Case(
        "eager",
        """
        Local eager
          Local celery/add""",
        {"celery/add/task.outcome": ["succeeded"]},
    ),
    Case(
        "eager and failing",
        """
        Local eager and failing
          Local celery/failing failed""",
    ),
    Case(
        "eager retry",
        """
        Local eager retry
          Local celery/flaky
          Local celery/flaky""",
        {"celery/flaky/task.outcome": ["retried", "succeeded"]},
    ),
    Case(
        "eager in eager",
        """
        Local eager in eager
          Local celery/working
            Local piece
              Exit celery/add
                Entry celery/add CROSS_PROCESS""",
    ),
    Case("untraced", "Local untraced"),
    Case(
        "not registered",
        """
        Local not registered
          Exit celery/nowhere
            Entry celery/unregistered task CROSS_PROCESS failed""",
        {"celery/unregistered task/task.name": ["nowhere"]},
    ),
    Case(
        "expired",
        sent("expired", "add"),
        {"celery/add/task.outcome": ["expired"]},
        only=frozenset({"redis"}),  # RabbitMQ drops it by itself where no worker has taken it in time
    ),
    Case(
        "killed",
        """
        Local killed
          Exit celery/dying
            Entry celery/dying CROSS_PROCESS failed
            Entry celery/dying CROSS_PROCESS""",
        {"celery/dying/task.outcome": ["crashed", "succeeded"], "celery/dying/mq.redelivered": ["true"]},
    ),
    Case(
        "hard time limit",
        sent("hard time limit", "endless", " failed"),
        {"celery/endless/task.outcome": ["timed out"]},
    ),
)


@dataclass(frozen=True)
class Setup:
    """A broker and a pool."""

    broker: str
    pool: str

    def has(self, case: Case) -> bool:
        """Say whether a case is tried here."""
        if self.pool != "prefork":
            return case.name in EVERYWHERE
        return not case.only or self.broker in case.only


SETUPS = (
    Setup("redis", "prefork"),
    Setup("rabbitmq", "prefork"),
    Setup("redis", "threads"),
    Setup("redis", "solo"),
    Setup("redis", "gevent"),
)


@dataclass
class Run:
    """What a worker and its client have left."""

    setup: Setup
    service: str
    broker: str
    told: dict[str, tuple[str, str]]
    began: datetime
    children: set[int]
    log: Path


@contextmanager
def worker(folder: Path, variables: dict[str, str], pool: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a worker, and end it as a process manager does."""
    log = folder / "worker.log"
    command = [str(BIN / "celery"), "-A", "celery_app", "worker", "-P", pool, "-c", "2", "-l", "INFO"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: " ready." in log.read_text(), process, log, 90)
        yield process, log
        process.terminate()
        process.wait(30)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with brokers.redis(tmp_path_factory.mktemp("redis") / "data") as url:
        yield url


@pytest.fixture(scope="module")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with brokers.rabbitmq(tmp_path_factory.mktemp("rabbitmq") / "data") as url:
        yield url


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: f"{setup.broker}-{setup.pool}")
def run(request: pytest.FixtureRequest, oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    setup: Setup = request.param
    url: str = request.getfixturevalue(f"{setup.broker}_url")
    folder, service, began = tmp_path_factory.mktemp("celery"), f"celery-{uuid4().hex[:6]}", datetime.now(UTC)
    variables = {
        **os.environ,
        "BROKER_URL": f"{url}/{SETUPS.index(setup)}" if setup.broker == "redis" else f"{url}//",
        "RESULT_URL": f"{url}/15" if setup.broker == "redis" else "",
        "PYTHONPATH": str(Path(__file__).parent),
        "SW_AGENT_NAME": service,
        "SW_AGENT_INSTANCE_NAME": "main",
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc,
    }
    names = [case.name for case in CASES if setup.has(case)]
    with worker(folder, variables, setup.pool) as (process, log):
        children = {one.pid for one in psutil.Process(process.pid).children(recursive=True)}
        found = Run(setup, service, re.sub(".*@", "", url), {}, began, children, log)
        variables["SW_AGENT_NAME"] = f"{service}-client"
        # Alone, afterwards, what kills a process: with it goes what other tasks have finished there a moment before.
        for part in ([name for name in names if name not in KILLING], [name for name in names if name in KILLING]):
            client = [sys.executable, "-m", "celery_app", *part]
            done = subprocess.run(client, env=variables, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            answer = json.loads(done.stdout.splitlines()[-1])
            assert answer["faults"] == {}
            found.told.update({name: tuple(value) for name, value in answer["told"].items()})
            for case in map(case_named, part):
                if outline(build(trace(oap, found, case))) != dedent(case.tree).strip():
                    break  # the tests will tell; waiting for all the others would take minutes
    return found


def trace(oap: OapServer, run: Run, case: Case) -> list[Span]:
    """Poll until the trace has the tree; return what there is at the deadline."""
    expected = dedent(case.tree).strip()
    trace_id = run.told[case.name][0]
    spans = oap.client.wait_for_trace(trace_id, lambda spans: outline(build(ours(spans))) == expected, DEADLINE)
    return ours(spans)


def ours(spans: list[Span]) -> list[Span]:
    """Leave out what the result backend asks of Redis, unless it is below the span of a message."""
    sends = {
        (span.segment_id, span.span_id) for span in spans if span.name.startswith("celery/") and span.kind == "Exit"
    }
    return [
        span for span in spans if not span.name.startswith("Redis/") or (span.segment_id, span.parent_span_id) in sends
    ]


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trace(case: Case, run: Run, oap: OapServer) -> None:
    if not run.setup.has(case):
        pytest.skip(f"not tried on {run.setup.broker} with {run.setup.pool}")
    spans = trace(oap, run, case)
    assert outline(build(spans)) == dedent(case.tree).strip()
    for key, values in case.tags.items():
        name, tag = key.rsplit("/", 1)
        ordered = sorted((span for span in spans if span.name == name), key=lambda span: (span.start, span.kind))
        assert [span.tags[tag] for span in ordered if tag in span.tags] == values


def test_no_other_trace_came_of_it(run: Run, oap: OapServer) -> None:
    """Neither the worker's talk with its broker nor what its children do besides tasks leaves a trace."""
    ids = {trace_id for trace_id, _ in run.told.values()}
    assert eventually(lambda: oap.client.traces_since(run.service, run.began)) <= ids
    assert trace_ids(oap, f"{run.service}-client", run.began, ids) == ids


def test_each_process_of_the_pool_is_an_instance(run: Run, oap: OapServer) -> None:
    expected = {f"main-child({pid})" for pid in run.children} if run.setup.pool == "prefork" else {"main"}
    assert eventually(lambda: expected <= set(instances(oap.client, run.service, run.began)))


def test_the_broker_is_named_without_its_password(run: Run, oap: OapServer) -> None:
    spans = trace(oap, run, case_named("delay"))
    where = run.broker + (f"/{SETUPS.index(run.setup)}" if run.setup.broker == "redis" else "")
    scheme = "amqp" if run.setup.broker == "rabbitmq" else "redis"
    messages = [span for span in spans if span.layer == "MQ"]
    assert [(span.kind, span.peer, span.tags["mq.broker"]) for span in messages] == [
        (kind, run.broker, f"{scheme}://{where}") for kind in ("Exit", "Entry")
    ]
    assert {span.component for span in messages} == {"Celery"}
    assert not any("p@ss" in f"{span}" or "p%40ss" in f"{span}" for span in spans)


def test_the_delay_is_what_the_task_waited_for_a_worker(run: Run, oap: OapServer) -> None:
    if run.setup.pool != "prefork":
        pytest.skip("one pool is enough")
    for name, least, most in (("delay", 0, None), ("countdown", 0, 900)):
        spans = trace(oap, run, case_named(name))
        sender, task = (next(span for span in spans if span.kind == kind) for kind in ("Exit", "Entry"))
        delay = int(task.tags["transmission.latency"])
        assert delay >= least
        if most is None:
            assert abs(delay - (task.start - sender.start)) < 1000
        else:  # it was not to run before
            assert task.start - sender.start >= 990
            assert delay <= task.start - sender.start - 990


def test_arguments_are_checked_where_the_task_is_called(run: Run) -> None:
    if "protocol" in run.told:
        assert run.told["protocol"][1] == "add() missing 1 required positional argument: 'y'"


def test_a_killed_task_began_when_it_began(run: Run, oap: OapServer) -> None:
    if "killed" not in run.told:
        pytest.skip("only a process can be killed alone")
    first, second = sorted(
        (span for span in trace(oap, run, case_named("killed")) if span.kind == "Entry"), key=lambda span: span.start
    )
    assert first.duration >= 150
    assert first.logs[0]["error.kind"] == "WorkerLostError"
    assert first.end <= second.start + 1000


def test_nothing_failed_in_tracing(run: Run) -> None:
    log = run.log.read_text(errors="replace")
    assert "tracing failed" not in log
    assert "DuplicateTaskNameWarning" not in log


def test_virtual_mq_and_the_message_queue_widgets_have_data(run: Run, oap: OapServer) -> None:
    if run.setup.pool != "prefork":
        pytest.skip("one pool is enough")
    trace(oap, run, case_named("delay"))
    wanted = [
        Metric("mq_service_produce_cpm", run.broker, normal=False),
        Metric("mq_service_consume_cpm", run.broker, normal=False),
        Metric("mq_service_consume_latency", run.broker, normal=False),
        Metric("mq_service_consume_sla", run.broker, normal=False),
        Metric("service_mq_consume_count", run.service),
        Metric("service_mq_consume_latency", run.service),
    ]

    def values() -> list[list[float]]:
        found = [list(points.values()) for points in read(oap.client, wanted, run.began)]
        return found if all(found) else []

    produced, consumed, latency, success, count, waited = eventually(values, 60)
    assert sum(produced) > 10
    assert sum(consumed) > 10
    assert sum(latency) > 0
    assert sum(count) == sum(consumed)
    assert waited == latency
    assert 0 < min(success) <= 10_000  # of 10,000: some are meant to fail
