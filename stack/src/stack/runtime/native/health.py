"""Asking a part whether it works.

httpx takes a while to import. It is when the first part starts already, and needs the time for itself.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx
    from oap_query import Oap

    from stack.runtime.native.parts import Part

TIMEOUT_SECONDS: Final = 5
NO_ANSWER: Final = "does not answer"
OAP_HEALTH: Final = "/healthcheck"


def answers(part: Part) -> bool:
    """Whether the part's health check succeeds."""
    return not health_problem(part)


def health_problem(part: Part) -> str:
    """Say why the part's health check does not succeed; an empty text when it does."""
    if part.health.startswith("redis://"):
        return _redis_problem(part)
    import httpx  # noqa: PLC0415  # see above

    try:
        response = _client().get(part.health)
    except httpx.HTTPError:
        return NO_ANSWER
    if response.is_success or (part.health.endswith(OAP_HEALTH) and _oap(part.health).healthy()):
        return ""
    return problem_of(response)


@cache
def _oap(health: str) -> Oap:
    """Return a client that knows an OAP that answers, and has not yet looked at its own health."""
    from oap_query import Oap  # noqa: PLC0415  # as above

    return Oap(health.removesuffix(OAP_HEALTH), TIMEOUT_SECONDS)


@cache
def _client() -> httpx.Client:
    """Return one client for all checks, which are plain HTTP: reading certificates would take 50 ms."""
    import httpx  # noqa: PLC0415  # as above

    no_connection_is_kept = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, verify=False, limits=no_connection_is_kept)  # noqa: S501


def problem_of(response: httpx.Response) -> str:
    """Describe a response that is no success: its status, and what it says about the reason.

    The service has it in the `detail` of a problem document (RFC 9457), a worker in `status`.
    """
    try:
        found = response.json()
        detail = found.get("detail") or found.get("status", "")
    except (ValueError, AttributeError):
        detail = ""
    return f"answers {response.status_code}" + (f": {detail}" if detail else "")


def _redis_problem(part: Part) -> str:
    from redis import Redis, RedisError  # noqa: PLC0415  # not every command looks at it

    timeouts = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    try:
        with Redis.from_url(part.health, password=part.health_password or None, **timeouts) as client:
            client.ping()
    except RedisError as error:
        return f"{NO_ANSWER} ({error})"
    return ""
