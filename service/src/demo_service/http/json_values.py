"""What a JSON body may hold beyond what its own syntax forbids."""

from __future__ import annotations

import math
from typing import Any, Final

MAX_DEPTH: Final = 32


def check_json(value: Any) -> None:  # noqa: ANN401  # JSON
    """Refuse what can't be stored, logged and sent on as it is.

    Raises:
        ValueError: nested too deeply, NaN or infinity, a number beyond 64 bits, NUL or half a character in a text.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item  # its keys
                below += item.values()
            elif isinstance(item, list):
                below += item
            else:
                _check_scalar(item)
        if not below:
            return
        level = below
    message = f"must not be nested more than {MAX_DEPTH - 1} levels deep"
    raise ValueError(message)


def _check_scalar(value: object) -> None:
    message = ""
    if isinstance(value, str):
        if "\0" in value:
            message = "must not contain NUL"
        elif not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            message = "must not contain half of a surrogate pair"
    elif isinstance(value, float):
        if not math.isfinite(value):
            message = "must not contain NaN or infinity"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        message = "must not contain whole numbers beyond 64 bits"
    if message:
        raise ValueError(message)
