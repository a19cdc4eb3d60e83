"""Tasks that failed for good: the notifications, and what is kept out of them and of the store.

The store, `demo_service.dead_letters.store`, is for those who need it: its SQLAlchemy takes 0.3 s and 20 MB.
"""

from demo_service.dead_letters.letter import DeadLetter, Reason, StoreUnavailableError, Wanted
from demo_service.dead_letters.notifier import Notifier
from demo_service.dead_letters.redaction import Redactor, describe, storable

__all__ = [
    "DeadLetter",
    "Notifier",
    "Reason",
    "Redactor",
    "StoreUnavailableError",
    "Wanted",
    "describe",
    "storable",
]
