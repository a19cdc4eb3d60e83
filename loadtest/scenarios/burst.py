"""All at once: 1,000 users wait at a gate, then each sends one request in the same moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent.event import Event
from limits import limit
from locust import LoadTestShape, constant, events, task
from locust.runners import WorkerRunner
from options import defaults
from visitor import Visitor

if TYPE_CHECKING:
    from locust.env import Environment

defaults(users=1000, run_time=60, spawn_rate=100)
# One process answers some 700 requests/s: the last of 1,000 has queued for more than a second.
limit("GET /test", 0.99, at_most=5000)

_gate = Event()


class Burst(Visitor):
    """Sends one request when the gate opens."""

    think = staticmethod(constant(3600))

    @task
    def test(self) -> None:
        """Wait for all others, then ask."""
        _gate.wait()
        self.ask("GET", "/test", answer="ok")


class BurstShape(LoadTestShape):
    """Ends the load when every user has been answered, or the time is over."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Keep all users until as many requests are done."""
        options = self.runner.environment.parsed_options
        users = options.num_users or 1
        over = options.run_time and self.get_run_time() > options.run_time
        if over or self.runner.stats.total.num_requests >= users:
            return None
        return users, options.spawn_rate or users


@events.init.add_listener
def _prepare(environment: Environment, **_: object) -> None:
    """Let the master open the gate of all workers: each of them knows only its own users."""
    runner = environment.runner
    runner.register_message("open the gate", lambda **_: _gate.set())
    if isinstance(runner, WorkerRunner):
        return
    environment.events.test_start.add_listener(lambda **_: _gate.clear())
    environment.events.spawning_complete.add_listener(lambda **_: runner.send_message("open the gate"))
