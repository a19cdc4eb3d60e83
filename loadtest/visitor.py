"""The user that all scenarios are made of."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import client_spans
import gevent
import options
import record
from locust import FastHttpUser, between

if TYPE_CHECKING:
    from collections.abc import Callable


class Visitor(FastHttpUser):
    """Asks, checks the answer, never waits for a background task.

    With `RATE` all users together send that many requests per second; a user whose answer is late sends what it owes at
    once. Without it each thinks as long as `think` says.
    """

    abstract = True
    think: Callable[[Any], float] = staticmethod(between(0.5, 1.5))
    connection_timeout = 30.0
    network_timeout = 60.0

    def on_start(self) -> None:
        """Choose how to wait."""
        rate, users = (options.number(self.environment, name) for name in ("rate", "num_users"))
        self._each = rate / max(1.0, users or 1.0) if rate else 0.0
        if self._each:
            self._due = time.monotonic()
            gevent.sleep(self.wait_time())

    def wait_time(self) -> float:
        """Wait until the next request, in s.

        Gaps of random length (a Poisson process), as requests of many people have: in a fixed rhythm all users would
        fall into step at the first moment in which the service is slow, and come in bursts from then on.
        """
        if not self._each:
            seconds: float = self.think(self)
            return seconds
        self._due += random.expovariate(self._each)
        return max(0.0, self._due - time.monotonic())

    def ask(  # noqa: PLR0913  # what a request is made of
        self,
        method: str,
        route: str,
        *,
        answer: Any = None,  # noqa: ANN401  # JSON
        tasks: int = 1,
        params: dict[str, Any] | None = None,
        json: object = None,
        fault: str = "",
    ) -> None:
        """Send a request that is named by its route, and check its answer.

        Args:
            method: of the request.
            route: the path, or its template.
            answer: what the JSON must be; anything when `None`.
            tasks: how many background tasks the request leaves behind: so many more segments belong to its trace.
            params: of the query.
            json: the body.
            fault: what shall go wrong in the background (`X-Fault`).
        """
        name = f"{method} {route}"
        span = client_spans.open_span(self.environment, name, self.host or "")
        headers = {**({"X-Fault": fault} if fault else {}), **(span.headers if span else {})}
        query = dict(params or {})
        if (seconds := options.number(self.environment, "task_seconds")) is not None:
            query.setdefault("duration", seconds)
        response: Any
        with self.client.request(
            method,
            route,
            name=name,
            params=query,
            json=json,
            headers=headers,
            catch_response=True,
            context={"tasks": tasks},
        ) as response:
            # A status of 0 is no answer at all, which Locust counts by itself.
            if response.status_code and (problem := _problem(response, answer)):
                response.failure(problem)
        if span:
            span.close(response.status_code)
        record.note(self.environment, name, response, tasks, query.get("duration"))


def _problem(response: Any, answer: Any) -> str:  # noqa: ANN401  # Locust's own, JSON
    if not response.ok:
        return f"status {response.status_code}"
    if answer is not None and (found := response.json()) != answer:
        return f"expected {answer!r}, got {found!r}"
    return ""
