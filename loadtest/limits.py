"""The limits of a scenario; where one is broken, Locust ends with exit code 1 and says why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from locust import events
from locust.runners import WorkerRunner

if TYPE_CHECKING:
    from locust.env import Environment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Limit:
    """A percentile of a route's response times, and its bounds in ms."""

    name: str
    percentile: float
    at_most: float
    at_least: float


_limits: list[_Limit] = []
_failures_allowed = False


def limit(name: str, percentile: float, at_most: float = float("inf"), *, at_least: float = 0) -> None:
    """Require that a percentile (0 to 1) of the route's response times is within these bounds, in ms."""
    _limits.append(_Limit(name, percentile, at_most, at_least))


def forget() -> None:
    """Remove all limits, as where the web page offers several scenarios."""
    _limits.clear()


def allow_failures() -> None:
    """Accept failed requests here: whoever started Locust decides which may fail."""
    global _failures_allowed  # noqa: PLW0603  # one per process, as Locust's events
    _failures_allowed = True


@events.quitting.add_listener
def _check(environment: Environment, **_: object) -> None:
    if environment.web_ui or isinstance(environment.runner, WorkerRunner):
        return
    broken = list(_broken(environment))
    for reason in broken:
        logger.error("limit broken: %s", reason)
    environment.process_exit_code = 1 if broken else 0


def _broken(environment: Environment) -> list[str]:
    total = environment.stats.total
    if not total.num_requests:
        return ["not a single request was answered"]
    found = []
    if total.num_failures and not _failures_allowed:
        found.append(f"{total.num_failures:,} of {total.num_requests:,} requests failed")
    for one in _limits:
        entry = environment.stats.get(one.name, one.name.split()[0])
        if not entry.num_requests:
            continue  # left out by its tag
        ms = entry.get_response_time_percentile(one.percentile)
        if not one.at_least <= ms <= one.at_most:
            bound = f"at most {one.at_most:,.0f}" if ms > one.at_most else f"at least {one.at_least:,.0f}"
            found.append(f"{one.name}: p{one.percentile * 100:g} is {ms:,.0f} ms, the limit is {bound}")
    return found
