"""`JSON=1`: one JSON document on standard output and nothing else; what is meant for people goes to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Found = dict[str, Any]
"""What a command has found; the command's docstring says which keys it sets."""


@contextmanager
def json_only(found: Found) -> Iterator[None]:
    """Send all output to standard error, that of child processes too; at the end print `found` to standard output."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(output, 1)
        os.close(output)
        print(json.dumps(_plain(found), ensure_ascii=False))  # noqa: T201


def _plain(value: object) -> object:
    """Replace what JSON does not have: NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
