"""The stack's settings: where they come from, and what they mean for the network."""

from stack.settings.basics import HOST, ROOT, UsageError
from stack.settings.caches import choose_cache
from stack.settings.loading import load_settings, recorded_runtime
from stack.settings.model import DEFAULT_RUN_DIR, NAME_LIMIT_CHARACTERS, SECRETS, Settings
from stack.settings.names import known_names, typing_errors
from stack.settings.network import exempt_loopback, free_port

__all__ = [
    "DEFAULT_RUN_DIR",
    "HOST",
    "NAME_LIMIT_CHARACTERS",
    "ROOT",
    "SECRETS",
    "Settings",
    "UsageError",
    "choose_cache",
    "exempt_loopback",
    "free_port",
    "known_names",
    "load_settings",
    "recorded_runtime",
    "typing_errors",
]
