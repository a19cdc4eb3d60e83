"""The part of the native stack that lets faults happen to the ways to run work: `stack.crash.server`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS = 40.0
"""To end a run takes a while: it ends its own processes first."""


class CrashError(Exception):
    """The part does not answer, or refuses. The message says which."""


class CrashDesk:
    """Its two orders and its answer, over a Unix socket that only this user may open.

    Args:
        socket: where it listens; `None` where there is none.
    """

    def __init__(self, socket: Path | None) -> None:
        self.available = socket is not None
        transport = httpx.AsyncHTTPTransport(uds=str(socket)) if socket is not None else None
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://crash", timeout=TIMEOUT_SECONDS, trust_env=False
        )

    async def state(self) -> dict[str, Any]:
        """Return `{"variants", "faults", "running", "run"}`; the run is `None` before the first one."""
        state: dict[str, Any] = await self._ask("GET", "/")
        return state

    async def begin(self, variant: str, fault: str) -> None:
        """Let a fault happen to a variant."""
        await self._ask("POST", "/runs", json={"variant": variant, "fault": fault})

    async def end(self) -> None:
        """End what runs."""
        await self._ask("DELETE", "/runs")

    async def _ask(self, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401  # JSON
        try:
            answer = await self._client.request(method, path, **more)
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            message = f"The part that does it does not answer ({error or type(error).__name__}): see `make status`"
            raise CrashError(message) from error
        if not answer.is_success:
            raise CrashError(f"It is refused: {found.get('detail') or answer.status_code}")
        return found
