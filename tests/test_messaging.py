"""What messages look like in SkyWalking that are sent and worked on without Celery: real brokers, real OAP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING
from uuid import uuid4

import brokers
import pytest
from harness import OapServer, eventually
from oap_query import Metric, build, outline, read

if TYPE_CHECKING:
    from oap_query import Span

FASTSTREAM = """
    Local client
      Exit orders publish
        Entry orders CROSS_PROCESS
          Local piece
      Exit orders publish
        Entry orders CROSS_PROCESS failed
          Local piece
      Exit orders publish
        Entry orders CROSS_PROCESS
          Local piece"""
TASKIQ = """
    Local client
      Local resize CROSS_PROCESS
        Local piece
      Local resize CROSS_PROCESS failed
        Local piece"""
APSCHEDULER = """
    Local client
      Local report CROSS_PROCESS"""
THREAD = """
    Local client
      Exit orders publish
        Entry orders CROSS_PROCESS"""
BROKERS = {"redis": brokers.redis, "rabbitmq": brokers.rabbitmq}


def traced(name: str, url: str, oap: OapServer, tree: str) -> list[Span]:
    """Run a program to its end, and read the trace that it has told of."""
    variables = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "SW_AGENT_NAME": f"{name}-{uuid4().hex[:6]}",
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc,
    }
    command = [sys.executable, "-m", "messaging_app", name, url]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (trace_id,) = re.findall(r"^[0-9a-f]{32}$", done.stdout, re.MULTILINE)  # FastStream logs there too
    expected = dedent(tree).strip()
    spans = oap.client.wait_for_trace(trace_id, lambda spans: outline(build(spans)) == expected, 40)
    assert outline(build(spans)) == expected
    return spans


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_faststream(broker: str, oap: OapServer, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    with BROKERS[broker](tmp_path / "data") as url:
        spans = traced("faststream", url, oap, FASTSTREAM)
    entries = sorted((span for span in spans if span.kind == "Entry"), key=lambda span: span.start)
    assert [span.tags["task.outcome"] for span in entries] == ["succeeded", "failed", "rejected"]
    peer = url.rpartition("@")[2]
    assert {(span.layer, span.peer, span.tags["mq.queue"]) for span in spans if span.kind != "Local"} == {
        ("MQ", peer, "orders")
    }
    assert not any("p@ss" in f"{span}" or "p%40ss" in f"{span}" for span in spans)
    wanted = Metric("mq_service_consume_latency", peer, normal=False)
    longest = max(int(span.tags["transmission.latency"]) for span in entries)

    def points() -> list[float]:
        (found,) = read(oap.client, [wanted], began)
        return list(found.values())

    assert 0 <= max(eventually(points, 60)) <= longest


@pytest.mark.parametrize(("name", "tree"), [("taskiq", TASKIQ), ("apscheduler", APSCHEDULER), ("thread", THREAD)])
def test_a_recipe(name: str, tree: str, oap: OapServer) -> None:
    traced(name, "", oap, tree)
