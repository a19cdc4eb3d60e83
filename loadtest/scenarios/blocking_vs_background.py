"""What background tasks are for: ten users wait 10 s for `/test/blocking`, ten get the same work done by `/test`."""

from limits import limit
from locust import constant, task
from options import defaults
from tracing_claims import RESPONSE_LIMIT_MS
from visitor import Visitor

defaults(users=20, run_time=35)
limit("GET /test", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("GET /test", 0.99, at_most=500)
limit("GET /test/blocking", 0.5, at_least=1000)


class Blocking(Visitor):
    """Waits for the work."""

    think = staticmethod(constant(1))

    @task
    def test(self) -> None:
        """Wait, and look at the clock."""
        self.ask("GET", "/test/blocking", answer="ok", tasks=0)


class Background(Visitor):
    """Lets the work run on."""

    think = staticmethod(constant(1))

    @task
    def test(self) -> None:
        """Get the answer at once."""
        self.ask("GET", "/test", answer="ok")
