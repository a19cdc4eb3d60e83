"""Tasks that failed for good: the store, the notifications, and what is kept out of both."""

from demo_service.dead_letters.letter import DeadLetter, Reason, Wanted
from demo_service.dead_letters.notifier import Notifier
from demo_service.dead_letters.redaction import Redactor, describe, storable
from demo_service.dead_letters.store import DeadLetters, StoreUnavailableError

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "Notifier",
    "Reason",
    "Redactor",
    "StoreUnavailableError",
    "Wanted",
    "describe",
    "storable",
]
