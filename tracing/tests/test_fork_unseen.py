"""A server written in C (uWSGI) forks without telling Python: its workers are processes of their own all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from collector import Collector, listening

if TYPE_CHECKING:
    from pathlib import Path

# As such a server does it: loads the app, forks by the C library alone, serves in the children. No thread may run
# before: Python's own lock does not survive that.
PROGRAM = """
import ctypes, logging, os, sys
import skywalking_background as sw
sw.start()
fork = ctypes.PyDLL(None).fork
children = []
for _ in range(3):
    if (child := fork()) == 0:
        if "log" in sys.argv:
            logging.getLogger("app").warning("from a child")
        else:
            for _ in range(5):
                with sw.background_span("child"): pass
        os._exit(0 if sw.flush() else 1)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def run(tmp_path: Path, *arguments: str) -> Collector:
    collector = Collector()
    with listening(collector, 0) as port:
        environment = {
            **os.environ,
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"127.0.0.1:{port}",
            "SW_AGENT_INSTANCE_NAME": "main",
        }
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return collector


def test_no_two_of_them_have_an_id_in_common(tmp_path: Path) -> None:
    collector = run(tmp_path)
    assert len(collector.segments) == 15
    assert len({one.traceId for one in collector.segments}) == 15
    assert len({one.traceSegmentId for one in collector.segments}) == 15
    instances = {one.serviceInstance for one in collector.segments}
    assert len(instances) == 3
    assert all(one.startswith("main-child(") for one in instances)


def test_a_log_line_that_comes_first_arrives_too(tmp_path: Path) -> None:
    collector = run(tmp_path, "log")
    assert [log.body.text.text.rpartition(" - ")[2] for log in collector.logs] == ["from a child"] * 3
    assert len({log.serviceInstance for log in collector.logs}) == 3
