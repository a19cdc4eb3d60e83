"""How downloads leave this machine: the proxies and the certificates that the environment names."""

from __future__ import annotations

import ipaddress
import os
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import certifi

from oap_embedded._errors import OapEmbeddedError

MIRROR_VARIABLE: Final = "MAVEN_MIRROR_URL"
"""Names the root of a Maven repository to use in the place of Maven Central."""

CERTIFICATES: Final = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a file (or a folder) of certificates of one's own: pip, requests and curl have one each."""

PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def trusted() -> ssl.SSLContext:
    """Return what is trusted: the system's certificates, the bundled ones, and those that the environment names.

    Raises:
        OapEmbeddedError: a variable names certificates that can't be read.
    """
    # OpenSSL itself reads SSL_CERT_FILE and SSL_CERT_DIR in the place of the system's, and says nothing when it can't.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    for variable in CERTIFICATES:
        if path := os.environ.get(variable):
            is_folder = Path(path).is_dir()
            try:
                context.load_verify_locations(**{"capath" if is_folder else "cafile": path})
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                message = f"{variable}={path} can't be read as certificates ({reason}): name a file of PEM certificates"
                raise OapEmbeddedError(message) from error
    return context


def is_loopback(url: str) -> bool:
    """Say whether a URL is of this machine: no proxy reaches that."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
