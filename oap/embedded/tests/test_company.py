"""The jars come through a company's proxy, which signs with an authority of its own."""

from __future__ import annotations

import ssl
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import trustme
from oap_embedded import OapEmbeddedError, fetch
from oap_embedded._network import CERTIFICATES, PROXIES
from proxy import NAME, recording_proxy
from repository import Handler, Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy import Proxy


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with recording_proxy() as found:
        for variable in PROXIES:
            monkeypatch.setenv(variable, found.url)
        yield found


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    for variable in CERTIFICATES:
        monkeypatch.delenv(variable, raising=False)
    return trustme.CA()


@pytest.fixture
def secure(mirror: Mirror, authority: trustme.CA) -> Iterator[Mirror]:
    """Serve the same mirror over TLS, as its own name, which only the proxy knows."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, mirror)) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(NAME).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        mirror.url = f"https://{NAME}:{server.server_port}/maven2"
        yield mirror
        server.shutdown()
        thread.join()


@pytest.fixture(params=CERTIFICATES)
def trust(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name the authority in one of the variables."""
    authority.cert_pem.write_to_path(tmp_path / "company.pem")
    monkeypatch.setenv(request.param, str(tmp_path / "company.pem"))


@pytest.mark.usefixtures("trust")
def test_a_companys_authority_is_trusted_whichever_variable_names_it(
    secure: Mirror, proxy: Proxy, tmp_path: Path
) -> None:
    jar = secure.add("org.demo:a:1.0", b"content")
    (path,) = fetch(tmp_path / "cache", [jar], secure.url)
    assert path.read_bytes() == b"content"
    assert proxy.asked == [f"CONNECT {secure.url.split('/')[2]}"]


def test_an_authority_that_nobody_trusts_is_refused_with_the_variable_that_helps(
    secure: Mirror, proxy: Proxy, tmp_path: Path
) -> None:
    jar = secure.add("org.demo:a:1.0", b"content")
    with pytest.raises(OapEmbeddedError, match=r"CERTIFICATE_VERIFY_FAILED.*company's certificates in SSL_CERT_FILE"):
        fetch(tmp_path, [jar], secure.url)


def test_certificates_that_are_none_are_called_so(
    secure: Mirror, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = secure.add("org.demo:a:1.0", b"content")
    for content in (None, "nonsense"):
        path = tmp_path / "company.pem"
        if content:
            path.write_text(content)
        monkeypatch.setenv("PIP_CERT", str(path))
        with pytest.raises(OapEmbeddedError, match=r"PIP_CERT=.*company\.pem can't be read as certificates"):
            fetch(tmp_path / "cache", [jar], secure.url)


def test_a_mirror_elsewhere_is_reached_through_the_proxy(mirror: Mirror, proxy: Proxy, tmp_path: Path) -> None:
    jar = mirror.add("org.demo:a:1.0", b"content")
    fetch(tmp_path, [jar], mirror.url.replace("127.0.0.1", NAME))
    assert proxy.asked == [f"GET {mirror.url.replace('127.0.0.1', NAME)}/{jar.path}"]


def test_a_mirror_on_this_machine_is_not(mirror: Mirror, proxy: Proxy, tmp_path: Path) -> None:
    fetch(tmp_path, [mirror.add("org.demo:a:1.0", b"content")], mirror.url)
    assert proxy.asked == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_that_is_away_is_named(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("all_proxy", url)
    monkeypatch.setattr("oap_embedded._download.ATTEMPTS", 1)
    with pytest.raises(OapEmbeddedError, match="the proxy in all_proxy was used"):
        fetch(tmp_path, [mirror.add("org.demo:a:1.0", b"content")], "http://mirror.example")


def test_a_proxy_that_is_none_is_named(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "ftp://somewhere:21")
    with pytest.raises(OapEmbeddedError, match=r"no proxy that can be used .*ALL_PROXY"):
        fetch(tmp_path, [mirror.add("org.demo:a:1.0", b"content")], "http://mirror.example")
