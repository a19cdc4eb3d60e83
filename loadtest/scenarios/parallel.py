"""Tasks side by side: a steady 100 requests/s, so that 1,000 ten-second tasks run at any time."""

from limits import limit
from locust import task
from options import defaults
from tracing_claims import RESPONSE_LIMIT_MS
from visitor import Visitor

defaults(users=100, run_time=30, rate=100)
limit("GET /test", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("GET /test", 0.99, at_most=500)


class Parallel(Visitor):
    """Asks at a steady rate: running tasks = requests per second x length of a task (Little's law)."""

    @task
    def test(self) -> None:
        """Leave one more task behind."""
        self.ask("GET", "/test", answer="ok")
