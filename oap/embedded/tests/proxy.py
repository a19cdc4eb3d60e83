"""A company's proxy on this machine: it passes on what it is asked for, and notes it."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "mirror.example"
"""A host that only the proxy can find: it is this machine."""


class Proxy(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        """The first line of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        line = self.rfile.readline().decode()
        method, target, version = line.split()
        self.server.asked.append(f"{method} {target}")
        head = b""
        while (header := self.rfile.readline()) not in {b"\r\n", b""}:
            head += b"" if header.lower().startswith((b"proxy-", b"connection")) else header
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = "127.0.0.1" if url.hostname == NAME else url.hostname
        with socket.create_connection((host, url.port or 80)) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Established\r\n\r\n")
            else:
                path = f"{method} {url.path or '/'} {version}\r\n".encode()
                upstream.sendall(path + b"Connection: close\r\n" + head + b"\r\n")
            back = threading.Thread(target=_copy, args=(upstream, self.connection), daemon=True)
            back.start()
            if method == "CONNECT":
                _copy(self.connection, upstream)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def recording_proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
