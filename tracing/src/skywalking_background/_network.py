"""Where OAP is and how to get there: addresses, proxies, TLS."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # a thread would import it with the first name: see `_bootstrap` about forks
import ipaddress
import os
import pkgutil
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from skywalking_background._failures import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_TIMEOUT: Final = 5.0
"""Seconds that one attempt to connect may take."""
ROOTS_VARIABLE: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
"""The variable that names the file with the authorities whose certificates gRPC trusts, and so do we."""
_PORT_MAX: Final = 65_535
_PROXY_PORT: Final = 80
_HEAD_MAX: Final = 65_536  # bytes of a proxy's answer


class Address(NamedTuple):
    """A host name or IP address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Proxy(NamedTuple):
    """A proxy and the variable of the environment that names it."""

    variable: str
    address: Address


def parse_addresses(text: str) -> list[Address]:
    """Read `host:port`, also with a scheme (`dns:///`, `http://`) before it; several are separated by commas.

    Raises:
        ValueError: one of them is no address; the text is a sentence for the user.
    """
    found = []
    for part in text.split(","):
        host, _, port = part.strip().rpartition("://")[2].strip("/").rpartition(":")
        host = host.removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _PORT_MAX:
            message = f"SW_AGENT_COLLECTOR_BACKEND_SERVICES={text!r} names no OAP: it must be like 127.0.0.1:11800"
            raise ValueError(message)
        found.append(Address(host, int(port)))
    return found


def find_proxy(address: Address, variables: Sequence[str]) -> Proxy | None:
    """Find the proxy that the first set one of the variables names for this address.

    The machine itself is never asked for through a proxy, nor is what `no_proxy` (or `no_grpc_proxy`) names.
    """
    if _is_loopback(address.host):
        return None
    values = {**getproxies_environment(), **{key: value for key, value in os.environ.items() if value}}
    # As gRPC does it: the one hides the other.
    exceptions = values.get("no_grpc_proxy") or values.get("no_proxy") or values.get("NO_PROXY") or ""
    if any(_matches(address, entry.strip()) for entry in exceptions.split(",")):
        return None
    for variable in variables:
        if value := values.get(variable):
            parts = urlsplit(value if "://" in value else f"http://{value}")
            if parts.hostname:
                return Proxy(variable, Address(parts.hostname, parts.port or _PROXY_PORT))
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".").endswith("localhost")


def _matches(address: Address, entry: str) -> bool:
    host = address.host.lower()
    entry = entry.lower().removesuffix(f":{address.port}").removeprefix("*.").strip("[]").lstrip(".")
    if not entry:
        return False
    if entry in {"*", host} or host.endswith(f".{entry}"):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def connect(  # noqa: PLR0913  # each is one part of the way
    addresses: Sequence[Address],
    *,
    proxies: Sequence[str] = (),
    tunnel: bool = True,
    tls: bool = False,
    alpn: str = "",
    deadline: float,
) -> socket.socket:
    """Connect to the first of the addresses that can be connected to.

    Args:
        addresses: where OAP may be.
        proxies: the variables that may name a proxy.
        tunnel: whether a proxy is asked to connect to OAP; without it the socket ends at the proxy.
        tls: whether the connection is encrypted, and the other side's certificate checked.
        alpn: the protocol that TLS agrees on.
        deadline: when to give up, in seconds as of `time.monotonic()`.

    Raises:
        UnreachableError: none of them; the text says why, and names the proxy if there was one.
    """
    causes = []
    for address in addresses:
        proxy = find_proxy(address, proxies)
        try:
            return _connect(address, proxy, tunnel=tunnel, tls=tls, alpn=alpn, deadline=deadline)
        except (OSError, ValueError) as error:
            causes.append(_say(error, address, proxy))
    raise UnreachableError("; ".join(dict.fromkeys(causes)))


def _connect(  # noqa: PLR0913
    address: Address, proxy: Proxy | None, *, tunnel: bool, tls: bool, alpn: str, deadline: float
) -> socket.socket:
    timeout = max(0.01, min(CONNECT_TIMEOUT, deadline - time.monotonic()))
    connection = socket.create_connection(proxy.address if proxy else address, timeout)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if proxy and tunnel:
            _ask_for_tunnel(connection, address)
        if tls:
            context = _trusting()
            if alpn:
                context.set_alpn_protocols([alpn])
            connection = context.wrap_socket(connection, server_hostname=address.host)
    except BaseException:
        connection.close()
        raise
    return connection


def _trusting() -> ssl.SSLContext:
    """Trust the system's authorities, and those that gRPC would: its own, or the ones in the user's file."""
    context = ssl.create_default_context()
    own = os.environ.get(ROOTS_VARIABLE)
    if own:
        try:
            context.load_verify_locations(own)
        except OSError as error:
            cause = getattr(error, "reason", None) or error.strerror
            raise ValueError(f"no certificates can be read from {ROOTS_VARIABLE}={own!r}, {cause}") from error
    elif bundled := pkgutil.get_data("grpc._cython", "_credentials/roots.pem"):
        context.load_verify_locations(cadata=bundled.decode("ascii", "ignore"))
    return context


def _ask_for_tunnel(connection: socket.socket, address: Address) -> None:
    connection.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_MAX:
        received = connection.recv(1)  # not a byte of what follows the answer
        if not received:
            break
        head += received
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        message = f"it answered {status[:100]!r}"
        raise ConnectionError(message)


def _say(error: Exception, address: Address, proxy: Proxy | None) -> str:
    if isinstance(error, TimeoutError):
        cause = "nobody answers there"
    elif isinstance(error, ConnectionRefusedError):
        cause = "connection refused"
    elif isinstance(error, (socket.gaierror, UnicodeError)):
        cause = f"the name {(proxy.address if proxy else address).host!r} can't be resolved"
    elif isinstance(error, ssl.SSLCertVerificationError):
        cause = (
            f"its certificate is not trusted, {error.verify_message}: "
            f"name the file of the authority that signed it in {ROOTS_VARIABLE}"
        )
    elif isinstance(error, ssl.SSLError):
        cause = f"TLS failed, {error.reason or error}"
    else:
        cause = str(error) or type(error).__name__
    if proxy:
        cause += (
            f", through the proxy {proxy.address} that {proxy.variable} names; "
            f"if OAP is to be reached without it, add {address.host} to no_proxy"
        )
    return cause
