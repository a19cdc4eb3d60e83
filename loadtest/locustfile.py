"""The smoke scenario: visitors who ask for `/test` about once a second and never wait for its task.

Locust's web page shows response times of some ms, while in SkyWalking the ten-second tasks pile up side by side.
"""

from typing import Any

from locust import FastHttpUser, between, task


class Visitor(FastHttpUser):
    """A user who looks at the answer, thinks for a second and asks again."""

    wait_time = between(0.5, 1.5)

    @task
    def test(self) -> None:
        """Ask for `/test`; the answer must be right, not only fast."""
        answer: Any
        with self.client.get("/test", name="GET /test", catch_response=True) as answer:
            if answer.status_code and answer.text != '"ok"':
                trace_id = (answer.headers or {}).get("X-Trace-Id", "no trace")
                answer.failure(f'expected 200 "ok", got {answer.status_code} (trace {trace_id})')
