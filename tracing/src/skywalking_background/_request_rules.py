"""How the requests of one app are traced: the arguments of `instrument`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skywalking_background._internals import config
from skywalking_background._names import route_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope


class RequestRules:
    """How the requests of one app are traced, and which of them are not.

    Args:
        operation: the name of the span for the framework's handling of a request.
        ignore: regular expressions; see `instrument`.
        error_status: the lowest response status that marks the request as failed.
        header: the response header that carries the trace id, if any.
    """

    def __init__(self, operation: str, ignore: Iterable[str], error_status: int, header: str | None) -> None:
        self.operation = operation
        patterns = "|".join(f"(?:{pattern})" for pattern in ignore)
        self.ignore = re.compile(patterns) if patterns else None
        self.error_status = error_status
        self.header = header.encode("latin-1") if header else None

    def ignores(self, method: str, scope: Scope) -> bool:
        """Say whether a request is never traced, by its path or its method."""
        path = scope["path"]
        below = route_path(scope) if scope.get("root_path") else path
        ignored = config.RE_IGNORE_PATH.match(below) or config.RE_HTTP_IGNORE_METHOD.match(method)
        if self.ignore is not None:
            ignored = ignored or self.ignore.fullmatch(below) or self.ignore.fullmatch(path)
        return bool(ignored or (path is not below and config.RE_IGNORE_PATH.match(path)))
