"""Asking a part whether it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

if TYPE_CHECKING:
    from stack.runtime.native.parts import Part

TIMEOUT_SECONDS: Final = 5
NO_ANSWER: Final = "does not answer"


def answers(part: Part) -> bool:
    """Whether the part's health check succeeds."""
    return not health_problem(part)


def health_problem(part: Part) -> str:
    """Say why the part's health check does not succeed; an empty text when it does."""
    try:
        response = httpx.get(part.health, timeout=TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return NO_ANSWER
    return "" if response.is_success else problem_of(response)


def problem_of(response: httpx.Response) -> str:
    """Describe a response that is no success: its status, and the detail of a problem document (RFC 9457)."""
    try:
        detail = response.json().get("detail", "")
    except (ValueError, AttributeError):
        detail = ""
    return f"answers {response.status_code}" + (f": {detail}" if detail else "")
