"""Notifications to people, sent by Apprise: the extra `notify`, which only `SERVICE_NOTIFY_URLS` needs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import SecretStr

logger = logging.getLogger(__name__)

SEND_SECONDS: Final = 15.0
"""How long sending a notification may take."""


class Recipients:
    """The people who are notified.

    Args:
        urls: Apprise URLs.

    Raises:
        ValueError: Apprise does not understand one of them.
    """

    def __init__(self, urls: Iterable[SecretStr]) -> None:
        self._apprise: Any = None
        for number, url in enumerate(urls, start=1):
            if self._apprise is None:
                import apprise  # noqa: PLC0415  # an extra; `Settings` has checked that it is installed

                self._apprise = apprise.Apprise()
            if not self._apprise.add(url.get_secret_value()):
                message = f"SERVICE_NOTIFY_URLS: Apprise does not understand number {number}"  # without its password
                raise ValueError(message)

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return self._apprise is not None

    def notify(self, title: str, lines: Iterable[str], kind: Literal["failure", "success", "warning"]) -> bool:
        """Send one message to all of them, and wait for it; say whether each has got it."""
        from apprise import NotifyType  # noqa: PLC0415  # as above

        return bool(self._apprise.notify(title=title, body="\n".join(lines), notify_type=NotifyType(kind)))


async def send(about: str, notify: Callable[[], bool]) -> None:
    """Call `notify` in a thread. If it fails, a log line says so, and what the notification was about."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            sent = await asyncio.to_thread(notify)
    except Exception:  # a plugin of Apprise may raise anything
        logger.exception("The notification of %s failed", about)
    else:
        if not sent:
            logger.warning("Not everybody could be notified of %s: see the lines of `apprise`", about)
