"""Every pattern of the service side by side, in the proportions of a real day; `TAGS` picks some of them."""

from uuid import uuid4

from limits import limit
from locust import tag, task
from options import defaults
from tracing_claims import RESPONSE_LIMIT_MS
from visitor import Visitor

defaults(users=50, run_time=30)
limit("GET /test", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("POST /action", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("POST /complex-action", 0.5, at_most=RESPONSE_LIMIT_MS)
limit("POST /process", 0.5, at_most=RESPONSE_LIMIT_MS)


class Mixed(Visitor):
    """Does a bit of everything."""

    @task(10)
    @tag("test")
    def test(self) -> None:
        """Ask as the diagram does."""
        self.ask("GET", "/test", answer="ok")

    @task(5)
    @tag("action")
    def action(self) -> None:
        """Pattern 1, fire and forget."""
        self.ask("POST", "/action", params={"duration": 2})

    @task(2)
    @tag("complex", "parallel")
    def side_by_side(self) -> None:
        """Pattern 2, three tasks side by side."""
        self.ask("POST", "/complex-action", tasks=3, params={"duration": 2})

    @task(1)
    @tag("complex", "sequential")
    def one_after_the_other(self) -> None:
        """Pattern 2, three tasks one after the other, as Starlette does it."""
        self.ask("POST", "/complex-action", tasks=3, params={"duration": 2, "mode": "sequential"})

    @task(5)
    @tag("process")
    def process(self) -> None:
        """Pattern 3, a task with parameters."""
        order = {"id": uuid4().hex, "lines": 3}
        self.ask("POST", "/process", answer={"status": "accepted", "id": order["id"]}, json=order)

    @task(1)
    @tag("blocking")
    def blocking(self) -> None:
        """One who waits."""
        self.ask("GET", "/test/blocking", answer="ok", tasks=0, params={"duration": 1})
