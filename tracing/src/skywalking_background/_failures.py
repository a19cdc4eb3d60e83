"""Why something was not delivered: what the reporter decides by, and what its log lines say."""

from __future__ import annotations


class DeliveryError(Exception):
    """OAP did not acknowledge. The text is the cause, to be read in a log line."""


class UnreachableError(DeliveryError):
    """Nobody answers, or the connection broke: keep everything and try again."""


class TimedOutError(DeliveryError):
    """OAP is connected and did not answer in time: it may be slow, or the batch too much for it."""


class RefusedError(DeliveryError):
    """OAP answered, and did not take what was sent: some of it may be at fault."""


class UnwelcomeError(DeliveryError):
    """Something answered that takes nothing from this process, whatever it sends: a setting is wrong."""
