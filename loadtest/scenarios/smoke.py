"""A first look: 50 visitors ask for `/test` about once a second, for 30 s."""

from limits import limit
from locust import task
from options import defaults
from tracing_claims import RESPONSE_LIMIT_MS
from visitor import Visitor

defaults(users=50, run_time=30)
limit("GET /test", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("GET /test", 0.99, at_most=500)


class Smoke(Visitor):
    """Looks at the answer, thinks for a second and asks again."""

    @task
    def test(self) -> None:
        """Ask for `/test`; its task sleeps on for 10 s."""
        self.ask("GET", "/test", answer="ok")
