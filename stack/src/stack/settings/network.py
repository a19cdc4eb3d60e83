"""The network: a free port, and a company's proxies, which are never for the stack's own parts."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stack.settings.basics import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "grpc_proxy")
"""In small letters; most programs read them in capitals too."""
EXCEPTIONS: Final = ("no_proxy", "no_grpc_proxy")
CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name a proxy."""
    return {name: value for name, value in environment.items() if name.lower() in PROXIES and value}


def direct(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep the loopback interface out of the proxies; none where there is no proxy.

    gRPC core, and with it the agent, takes a proxy for 127.0.0.1 too unless it is told not to.
    """
    if not proxies(environment):
        return {}
    found: dict[str, str] = {}
    for name in EXCEPTIONS:
        given = (environment.get(spelled, "") for spelled in (name, name.upper()))
        hosts = [host.strip() for value in given for host in value.split(",") if host.strip()]
        if hosts or name == "no_proxy":
            value = ",".join(dict.fromkeys((*hosts, *LOOPBACK)))
            found |= {name: value, name.upper(): value}
    return found


def exempt_loopback() -> None:
    """Let this process, and all that it starts, reach the loopback interface without a proxy."""
    found = direct(os.environ)
    if "*" in found.get("no_proxy", "").split(","):
        # `*` means that no proxy is to be used. gRPC does not know it, and urllib does not know it within a list.
        for name in (*proxies(os.environ), *found):
            os.environ.pop(name, None)
    else:
        os.environ.update(found)


def without_password(url: str) -> str:
    """Return a proxy's URL without its password."""
    found = urlsplit(url if "://" in url else f"//{url}")
    return url.replace(f":{found.password}@", ":***@") if found.password else url


def broken_certificates(environment: Mapping[str, str]) -> Iterator[str]:
    """Return the variables of certificates whose file or folder can't be read."""
    for name in CERTIFICATES:
        if (path := environment.get(name)) and not (Path(path).exists() and os.access(path, os.R_OK)):
            yield name
