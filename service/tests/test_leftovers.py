"""What is over is freed at once: full collections are rare here, and memory would grow until one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("leftovers.py")
OUTCOMES = [
    "succeeded", "retried", "dead", "dead in a thread", "three dead", "one dead, two dropped", "attempt too long",
    "interrupted", "refused", "400", "404", "405", "413", "422", "no store", "client gone while it waits",
    "client gone in mid-request",
]  # fmt: skip


@pytest.fixture(scope="module")
def left() -> dict[str, dict[str, int]]:
    """What of ours a collection frees after 500 of each outcome."""
    done = subprocess.run([sys.executable, PROGRAM], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("outcome", [*OUTCOMES, "500"])
def test_nothing_of_ours_waits_for_a_collection(left: dict[str, dict[str, int]], outcome: str) -> None:
    assert left[outcome] == {}


def test_no_outcome_is_left_out(left: dict[str, dict[str, int]]) -> None:
    assert set(left) == {*OUTCOMES, "500"}
