"""The rule: which requests are refused, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
HEADERS: Final = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer says to browsers: no other page may frame, embed or read it."""
_OWN: Final = frozenset({"same-origin", "none"})  # the page itself; a typed address, a bookmark, a link in a terminal
_PLAIN: Final = frozenset({"GET", "HEAD"})


def names(more: str) -> frozenset[str]:
    """Return the loopback names and those of a list separated by commas, in lower case."""
    return frozenset(name for name in (*LOOPBACK, *(_name(each) for each in more.split(","))) if name)


def _name(host: str) -> str:
    """Return a host without its port."""
    host = host.strip().lower()
    return host if host.endswith("]") else host.rpartition(":")[0] or host


@dataclass(frozen=True)
class Rule:
    """Who may ask.

    A `Host` that is not of `hosts` is refused: a page of somebody else could have pointed its own name at this machine
    (DNS rebinding). So is an `Origin` other than the one that was asked, and whatever else a browser marks as sent by
    another site, such as an image whose address is an order. Programs send neither, and are let in.

    Args:
        hosts: the names by which this machine may be called, without ports.
        setting: the variable that adds some, for the message.
        pages: matches the paths to which other sites may link, as they only show something.
        health: matches the paths that may be asked by any name: a container's health check has one of its own.
    """

    hosts: frozenset[str]
    setting: str
    pages: re.Pattern[str]
    health: re.Pattern[str]

    def objection(self, method: str, path: str, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused, in a sentence; `None` when it is not.

        Args:
            method: of the request, `GET` for a WebSocket.
            path: of the request, without the query.
            headers: `host`, `origin`, `sec-fetch-site`, `sec-fetch-mode` and `sec-fetch-dest`, where they were sent.
        """
        host = headers.get("host", "").strip().lower()
        name = _name(host)
        if name not in self.hosts and not self.health.fullmatch(path):
            return f"the host name {name[:100]!r} is not allowed here; {self.setting} can allow it"
        origin = headers.get("origin")
        if origin is not None:
            return None if _netloc(origin) == host else "requests from other sites are refused"
        if headers.get("sec-fetch-site", "none") in _OWN or self._is_link(method, path, headers):
            return None
        return "requests from other sites are refused"

    def _is_link(self, method: str, path: str, headers: Mapping[str, str]) -> bool:
        """Say whether somebody has followed a link to one of the pages."""
        opened = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        return opened and method in _PLAIN and bool(self.pages.fullmatch(path))


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # half of an IPv6 address
        return None


SENT: Final = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")
"""The headers that the rule looks at."""
