"""Faults under load: OAP is stopped and started, the service restarted, OAP's disk full; each loss is counted."""

from limits import allow_failures
from locust import task
from options import defaults
from visitor import Visitor

# `make load` breaks things meanwhile, ends the load when it is through, and knows which requests may fail.
defaults(users=30, run_time=600, rate=30)
allow_failures()


class Chaos(Visitor):
    """Asks on, whatever happens."""

    @task
    def test(self) -> None:
        """Leave a short task behind, so that the service can end between two of them."""
        self.ask("GET", "/test", answer="ok", params={"duration": 1})
