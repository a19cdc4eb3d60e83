"""Checking the broker before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stack.runtime.checks import Check
from stack.runtime.native.broker import INSTALL, find_broker
from stack.settings.network import without_password

if TYPE_CHECKING:
    from stack.settings import Settings

TIMEOUT_SECONDS: Final = 5


def check_broker(settings: Settings) -> Check:
    """Check that there is a broker, and that the user's own one answers. A stack without any is fine, but has less."""
    without = "/test/celery and /test/queue answer 503"
    broker = find_broker(settings)
    if not settings.wants_broker:
        return Check("broker", f"off, so {without}")
    if settings.given_broker_url:
        return _check_url(settings.given_broker_url)
    if broker.server is None:
        return Check("broker", f"none, so {without}: {INSTALL}")
    return Check("broker", f"{broker.server} {broker.version}, started with the stack")


def _check_url(url: str) -> Check:
    from kombu import Connection  # noqa: PLC0415  # slow to import, and needed for this check only
    from kombu.exceptions import KombuError  # noqa: PLC0415

    shown = without_password(url)
    try:
        connection = Connection(url, connect_timeout=TIMEOUT_SECONDS)
        errors = (*connection.connection_errors, *connection.channel_errors, KombuError, OSError)
    except (ImportError, KeyError, ValueError) as error:
        return Check("broker", f"{shown} can't be used ({error})", "correct BROKER_URL")
    try:
        connection.ensure_connection(max_retries=1, timeout=TIMEOUT_SECONDS)
        connection.default_channel.close()
    except errors as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Check("broker", f"{shown} does not answer ({reason})", "start that broker, or correct BROKER_URL")
    finally:
        connection.release()
    return Check("broker", f"{shown} answers")
