"""TLS on the way to OAP: a certificate that is trusted delivers, one that is not is named as the cause."""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import trustme
from collector import Collector, listening
from skywalking import config
from skywalking_background import _reporter, background_span
from skywalking_background._grpc import GrpcTransport
from skywalking_background._http import HttpTransport
from skywalking_background._network import ROOTS_VARIABLE
from skywalking_background._reporter import Counts, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> Path:
    """The file that names the authority."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path


@contextmanager
def over_grpc(certificate: trustme.LeafCert) -> Iterator[tuple[Reporter, list[str]]]:
    key = certificate.private_key_pem.bytes()
    chain = b"".join(one.bytes() for one in certificate.cert_chain_pems)
    collector = Collector()
    with listening(collector, 0, grpc.ssl_server_credentials([(key, chain)])) as port:
        yield Reporter(GrpcTransport(f"127.0.0.1:{port}")), collector.instances


@contextmanager
def over_http(certificate: trustme.LeafCert) -> Iterator[tuple[Reporter, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that don't trust it
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Reporter(HttpTransport(f"127.0.0.1:{server.server_port}")), asked
        server.shutdown()
        thread.join()


class Delivery(NamedTuple):
    """What became of one segment."""

    acknowledged: bool
    counts: Counts
    asked: list[str]
    """What reached the server, in its own words."""
    said: str


@pytest.fixture(params=[over_grpc, over_http])
def deliver(
    request: pytest.FixtureRequest,
    segments: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Callable[..., Delivery]:
    """Send a segment to what has a certificate, with variables set."""
    monkeypatch.setattr(config, "agent_force_tls", True)
    monkeypatch.setattr(_reporter, "FIRST_CONTACT", 10.0)
    for variable in (ROOTS_VARIABLE, "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)

    def run(certificate: trustme.LeafCert, **environment: Path) -> Delivery:
        for variable, path in environment.items():
            monkeypatch.setenv(variable, str(path))
        with background_span("task"):
            pass
        with request.param(certificate) as (reporter, asked):
            reporter.segments.put(segments.pop())
            acknowledged = reporter.flush()
        return Delivery(acknowledged, reporter.counts()["segments"], asked, caplog.text)

    return run


@pytest.mark.parametrize("variable", [ROOTS_VARIABLE, "SSL_CERT_FILE"])
def test_what_a_trusted_authority_signed_gets_everything(
    deliver: Callable[..., Delivery], authority: trustme.CA, trusted: Path, variable: str
) -> None:
    done = deliver(authority.issue_cert("127.0.0.1"), **{variable: trusted})
    assert (done.acknowledged, done.counts) == (True, Counts(1, 0, 0))
    assert done.asked


def test_what_nobody_trusted_signed_gets_nothing_and_the_log_says_why(deliver: Callable[..., Delivery]) -> None:
    done = deliver(trustme.CA().issue_cert("127.0.0.1"))
    assert (done.acknowledged, done.counts, done.asked) == (False, Counts(0, 1, 0), [])
    assert "is not reachable (its certificate is not trusted, unable to get local issuer certificate" in done.said
    assert "name the file of the authority that signed it in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in done.said


def test_a_certificate_for_another_host_is_not_taken_either(
    deliver: Callable[..., Delivery], authority: trustme.CA, trusted: Path
) -> None:
    done = deliver(authority.issue_cert("other.example"), **{ROOTS_VARIABLE: trusted})
    assert (done.acknowledged, done.asked) == (False, [])
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in done.said


@pytest.mark.parametrize(
    ("content", "cause"), [(None, "No such file or directory"), ("", "NO_CERTIFICATE_OR_CRL_FOUND")]
)
def test_a_file_without_authorities_is_named(
    deliver: Callable[..., Delivery], authority: trustme.CA, tmp_path: Path, content: str | None, cause: str
) -> None:
    path = tmp_path / "none.pem"
    if content is not None:
        path.write_text(content)
    done = deliver(authority.issue_cert("127.0.0.1"), **{ROOTS_VARIABLE: path})
    assert not done.acknowledged
    assert f"no certificates can be read from GRPC_DEFAULT_SSL_ROOTS_FILE_PATH='{path}', {cause}" in done.said
