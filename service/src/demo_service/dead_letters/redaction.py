"""Secrets stay out of dead letters, logs and traces of failed tasks."""

from __future__ import annotations

import json
import re
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REDACTED: Final = "[redacted]"
MIN_SECRET_CHARS: Final = 3
"""The shortest secret that is looked for in texts: a shorter one would blank out half of them."""
DESCRIPTION_CHARS: Final = 1000
"""The longest description of an error."""


def storable(text: str) -> str:
    """Escape what neither databases nor JSON take in a text: NUL and half characters."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def describe(error: BaseException) -> str:
    """Return an error in one line of reasonable length."""
    return storable(f"{type(error).__name__}: {error}")[:DESCRIPTION_CHARS]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


class Redactor:
    """Knows the names of fields that hold secrets; `apiKey` and `X-API-Key` are `api_key` too."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = [plain for name in names if (plain := _plain(name))]

    def kept(self, arguments: Mapping[str, Any], limit: int) -> tuple[str, bool]:
        """Return what of the arguments is kept, as JSON of at most about `limit` bytes, and whether that is all."""
        clean = self.arguments(arguments)
        text = json.dumps(clean, default=repr)
        if len(text) > limit:
            return json.dumps({"omitted": f"{len(text)} bytes, more than the {limit} that are kept"}), False
        return text, clean == arguments

    def arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy without the secrets."""
        return {key: self._value(key, value) for key, value in arguments.items()}

    def _value(self, key: str, value: Any) -> Any:  # noqa: ANN401  # JSON
        if self._is_secret(key):
            return REDACTED
        if isinstance(value, dict):
            return self.arguments(value)
        return [self._value("", item) for item in value] if isinstance(value, list) else value

    def error(self, error: Exception, arguments: Mapping[str, Any]) -> Exception:
        """Return the error; or, if it or one of its causes contains a secret of the arguments, a redacted copy."""
        secrets = sorted({*self._secrets(arguments, within=False)}, key=len, reverse=True)
        text = "".join(traceback.format_exception(error)) if secrets else ""
        if not any(secret in text for secret in secrets):
            return error
        message = str(error)
        for secret in secrets:
            message = message.replace(secret, REDACTED)
        redacted = _redacted_class(type(error), message)
        clean = redacted.__new__(redacted)
        clean.__suppress_context__ = True
        return clean.with_traceback(error.__traceback__)

    def _is_secret(self, key: str) -> bool:
        plain = _plain(key)
        return any(name in plain for name in self._names)

    def _secrets(self, value: Any, *, within: bool) -> Iterator[str]:  # noqa: ANN401  # JSON
        if isinstance(value, dict):
            for key, item in value.items():
                yield from self._secrets(item, within=within or self._is_secret(key))
        elif isinstance(value, list):
            for item in value:
                yield from self._secrets(item, within=within)
        elif (
            within
            and isinstance(value, str | int | float)
            and not isinstance(value, bool)
            and len(str(value)) >= MIN_SECRET_CHARS
        ):
            yield str(value)


def _redacted_class(kind: type[Exception], message: str) -> type[Exception]:
    """Make a subclass of an error's class with the same name and this message: `except` and traces see no change."""
    return type(kind.__name__, (kind,), {"__str__": lambda _self: message, "__module__": kind.__module__})
