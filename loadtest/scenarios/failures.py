"""Tasks that fail: some succeed at a later attempt, some end as dead letters, and no answer is slower for it."""

from limits import limit
from locust import tag, task
from options import defaults
from tracing_claims import RESPONSE_LIMIT_MS
from visitor import Visitor

defaults(users=20, run_time=30)
limit("POST /action", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("POST /action", 0.99, at_most=500)


class Failures(Visitor):
    """Asks for work that goes wrong (`X-Fault`); its requests must be answered as all others are."""

    @task(6)
    @tag("good")
    def good(self) -> None:
        """Work that succeeds."""
        self._ask("")

    @task(3)
    @tag("retry")
    def retried(self) -> None:
        """A dependency that fails twice and is back."""
        self._ask("error;times=2")

    @task(2)
    @tag("slow")
    def slow(self) -> None:
        """A dependency that is slow."""
        self._ask("delay=500ms")

    @task(1)
    @tag("dead")
    def dead(self) -> None:
        """A bug: every attempt fails, and a dead letter is what is left."""
        self._ask("error")

    def _ask(self, fault: str) -> None:
        self.ask("POST", "/action", fault=fault, params={"duration": 1})
