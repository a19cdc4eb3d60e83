"""A Maven repository on this machine, with what a test puts into it."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler

from oap_embedded import Jar


class Mirror:
    """What the repository has and does, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        """Path and `Range` of each request."""
        self.troubles: list[int] = []
        """Status codes to answer first."""
        self.ranges = True
        self.url = ""

    def add(self, coordinates: str, content: bytes) -> Jar:
        jar = Jar(hashlib.sha256(content).hexdigest(), len(content), coordinates)
        self.files[f"/maven2/{jar.path}"] = content
        return jar


class Handler(BaseHTTPRequestHandler):
    def __init__(self, mirror: Mirror, *arguments) -> None:
        self.mirror = mirror
        super().__init__(*arguments)

    def do_GET(self) -> None:
        start, status = 0, 200
        self.mirror.requests.append((self.path, self.headers["Range"]))
        content = self.mirror.files.get(self.path)
        if self.mirror.troubles:
            status, content = self.mirror.troubles.pop(0), b"in trouble"
        elif content is None:
            status, content = 404, b"no such file"
        elif self.mirror.ranges and (asked := self.headers["Range"]):
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def log_message(self, *arguments) -> None:
        """Be quiet."""
