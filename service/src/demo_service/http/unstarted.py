"""What a request has accepted and what becomes of it if it never starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from demo_service.tasks import release

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from demo_service.tasks import Execution

_KEY: Final = "demo_service.accepted"


def note_accepted(scope: Scope, executions: Iterable[Execution]) -> None:
    """Remember that a request has accepted tasks."""
    scope[_KEY] += executions


class AbandonUnstarted:
    """ASGI middleware: when a request is over, each task that it accepted has begun or is a dead letter.

    A task may stay behind because the one before it failed (`BackgroundTasks` then drops the rest), because the
    endpoint failed after it had accepted it, or because the server cut the request short.

    Args:
        app: what answers.
        kept: waits until what was accepted is kept: no answer says `accepted` before.
    """

    def __init__(self, app: ASGIApp, kept: Callable[[], Awaitable[None]]) -> None:
        self.app = app
        self.kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, then look after what it has accepted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        accepted: list[Execution] = []
        scope[_KEY] = accepted

        async def send_when_kept(message: Message) -> None:
            if accepted and message["type"] == "http.response.start":
                await self.kept()
            await send(message)

        try:
            await self.app(scope, receive, send_when_kept)
        except Exception as error:
            if not _is_of_a_task(error, accepted):
                raise
            release(error)  # the task has logged it
        finally:
            for execution in accepted:
                execution.abandon()
                execution.forget_error()


def _is_of_a_task(error: Exception, accepted: list[Execution]) -> bool:
    if isinstance(error, ExceptionGroup):
        return all(_is_of_a_task(one, accepted) for one in error.exceptions)
    return any(execution.error is error for execution in accepted)
