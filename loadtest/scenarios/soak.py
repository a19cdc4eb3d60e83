"""Ten minutes of the same modest load: what grows or slows down with time shows here."""

from limits import limit
from locust import task
from options import defaults
from visitor import Visitor

defaults(users=20, run_time=600, rate=20)
limit("GET /test", 0.5, at_most=50)
limit("GET /test", 0.99, at_most=200)


class Soak(Visitor):
    """Asks once a second, and again, and again."""

    @task
    def test(self) -> None:
        """Leave one more task behind."""
        self.ask("GET", "/test", answer="ok")
