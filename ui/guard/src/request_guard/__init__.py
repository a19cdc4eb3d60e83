"""Who may talk to a page on this machine: its own names and its own origin, and nobody else's pages.

One rule for all parts, and a thin middleware around it for each kind of server; the standard library is all it needs.
"""

from request_guard._asgi import AsgiGuard
from request_guard._rule import HEADERS, LOOPBACK, Rule, names
from request_guard._wsgi import WsgiGuard

__all__ = ["HEADERS", "LOOPBACK", "AsgiGuard", "Rule", "WsgiGuard", "names"]
