"""For all tests: no proxy for what is on this machine, and which tests pytest-xdist keeps together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from stack.settings import exempt_loopback
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Generator

exempt_loopback()

ALONE = (
    "stack/tests/test_runtime_native.py",
    "tests/test_delivery.py",
    "tests/test_failures.py",
    "tests/test_fork.py",
    "tests/test_library_doctor.py",
    "tests/test_load.py",
    "tracing/tests/test_journal.py",
    "tracing/tests/test_reporter.py",
)
"""Files that take long and whose tests share nothing but OAP."""
BY_PARAMETER = ("tests/test_broker_work.py", "tests/test_celery_traces.py", "tests/test_traces.py")
"""Files whose tests share what they start with those of the same first parameter: a broker, or a stack."""


class Scheduling(LoadFileScheduling):
    """Gives the tests of a file to one worker, as they share what they start, but for the files above."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in ALONE:
            return nodeid
        return file + nodeid.partition("[")[2].partition("-")[0] if file in BY_PARAMETER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:  # noqa: ANN401  # xdist's own
    """Distribute the tests so."""
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Let pytest-xdist send what a test has logged, half characters included."""
    return _encodable((yield))


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(one) for key, one in value.items()}
    return type(value)(map(_encodable, value)) if isinstance(value, list | tuple) else value
