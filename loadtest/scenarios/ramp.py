"""Where is the limit: 50 requests/s more every 10 s, until p99 exceeds 100 ms or a request fails."""

from __future__ import annotations

import logging
import time

import gevent
from locust import LoadTestShape, events, task
from locust.runners import WorkerRunner
from options import defaults, number
from tracing_claims import RESPONSE_LIMIT_MS
from visitor import Visitor

logger = logging.getLogger(__name__)

STEP_USERS = 50
"""So many users, each with one request per second, are added by each step; `RATE` changes it."""
STEP_SECONDS = 10
"""How long a step lasts: Locust's current percentiles cover this time."""

defaults(users=1000, run_time=300)


class Ramp(Visitor):
    """Asks once a second."""

    @task
    def test(self) -> None:
        """Leave one more task behind."""
        self.ask("GET", "/test", answer="ok")

    def on_start(self) -> None:
        """Keep to one request a second: the number of users is the rate."""
        self._each, self._due = 1.0, time.monotonic()
        gevent.sleep(self.wait_time())


class RampShape(LoadTestShape):
    """Climbs by one step after the other; `USERS` and `DURATION` are where it ends at the latest."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Look at the step that is about to end before the next one is taken."""
        options = self.runner.environment.parsed_options
        height = int(number(self.runner.environment, "rate") or STEP_USERS)
        step = int(self.get_run_time() // STEP_SECONDS) + 1
        users = min(step * height, options.num_users)
        total = self.runner.stats.total
        p99 = total.get_current_response_time_percentile(0.99) or 0
        if step > 1 and (p99 > RESPONSE_LIMIT_MS or total.num_failures):
            rate = self.get_current_user_count()  # what was so far, not the step that would begin now
            logger.warning("the limit is at about %d requests/s: p99 %d ms, %d failed", rate, p99, total.num_failures)
            return None
        if step * height > options.num_users or (options.run_time and self.get_run_time() > options.run_time):
            logger.warning("no limit up to %d requests/s: p99 %d ms", users, p99)
            return None
        return users, height


@events.init.add_listener
def _explain(environment: object, **_: object) -> None:
    if not isinstance(getattr(environment, "runner", None), WorkerRunner):
        logger.info(__doc__)
