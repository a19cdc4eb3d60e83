"""Downloading jars: in parallel, resumed where an earlier run broke off, every byte checked against the lock."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import stamina

from oap_embedded._errors import OapEmbeddedError
from oap_embedded._lock import Jar, sha256
from oap_embedded._network import MIRROR_VARIABLE, PROXIES, is_loopback, trusted
from oap_embedded._progress import Tally, progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONNECTIONS: Final = 8
TIMEOUT_SECONDS: Final = 30.0  # without a byte
ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.5  # doubled with each attempt
_CHUNK: Final = 1 << 16

logging.getLogger("stamina").addHandler(logging.NullHandler())  # its line about each retry is for programs that log

_HINT: Final = f"check the network, or name another mirror in {MIRROR_VARIABLE}"


def download(cache: Path, jars: Sequence[Jar], mirror: str) -> None:
    """Fetch these jars into the folder; each appears there under its name only when it is the right one.

    Raises:
        OapEmbeddedError: the mirror is away, has no such jar, or another one.
        OSError: the folder can't be written.
    """
    with (
        _client(mirror) as client,
        progress(jars) as tally,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        job = _Job(client, tally, threading.Event())
        running = [pool.submit(_fetch, job, f"{mirror}/{jar.path}", cache, jar) for jar in jars]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            job.failed.set()
            pool.shutdown(cancel_futures=True)
            raise


def _client(mirror: str) -> httpx.Client:
    try:
        return httpx.Client(
            verify=trusted(),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=True,
            # Identity: positions in the file are to be positions in the answer.
            headers={"Accept-Encoding": "identity"},
            trust_env=not is_loopback(mirror),
        )
    except (ValueError, httpx.InvalidURL) as error:
        message = (
            f"the environment names no proxy that can be used ({error}): correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
        )
        raise OapEmbeddedError(message) from error


class _Job(NamedTuple):
    """What the downloads share."""

    client: httpx.Client
    tally: Tally
    failed: threading.Event
    """Set once one has failed for good: the others need no second attempt."""


def _fetch(job: _Job, url: str, cache: Path, jar: Jar) -> None:
    part = cache / f"{jar.name}.part"
    resumed = part.exists()
    found = _complete(job, url, part, jar)
    if resumed and found != jar.sha256:  # what the earlier run left was damaged: once more, from the start
        part.unlink()
        found = _complete(job, url, part, jar)
    if found != jar.sha256:
        part.unlink()
        message = f"{url} is not the jar of the lock (SHA-256 {found}, expected {jar.sha256}) and was deleted: {_HINT}"
        raise OapEmbeddedError(message)
    part.replace(cache / jar.name)
    job.tally.complete(jar)


def _complete(job: _Job, url: str, part: Path, jar: Jar) -> str:
    """Complete the file, in several attempts if need be, and return its hash."""
    try:
        for attempt in stamina.retry_context(
            on=lambda error: _is_passing(error) and not job.failed.is_set(),
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=FIRST_PAUSE_SECONDS,
            wait_jitter=FIRST_PAUSE_SECONDS,
        ):
            with attempt:
                _stream(job, url, part, jar)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        problem = "has no such file (404)" if code == httpx.codes.NOT_FOUND else f"answered {code}"
        message = f"{error.request.url.host} {problem} for {url}: {_HINT}"
        raise OapEmbeddedError(message) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"{url} can't be fetched ({str(error) or type(error).__name__}): {_hint(error, url)}"
        raise OapEmbeddedError(message) from error
    return sha256(part)


def _hint(error: Exception, url: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "name the file of your company's certificates in SSL_CERT_FILE"
    if isinstance(error, httpx.ProxyError):
        return (
            "this is the answer of the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY; NO_PROXY exempts a host from it"
        )
    if not is_loopback(url) and (used := next((name for name in PROXIES if os.environ.get(name)), None)):
        return f"{_HINT}; the proxy in {used} was used"
    return _HINT


def _stream(job: _Job, url: str, part: Path, jar: Jar) -> None:
    """Append what is missing of the file; begin anew where the server can't resume."""
    have = part.stat().st_size if part.exists() else 0
    if have == jar.size:
        job.tally.at(jar, have)
        return
    headers = {"Range": f"bytes={have}-"} if 0 < have < jar.size else {}
    with job.client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = bool(headers) and response.status_code == httpx.codes.PARTIAL_CONTENT
        position = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw(_CHUNK):
                file.write(chunk)
                position += len(chunk)
                job.tally.at(jar, position)


def _is_passing(error: Exception) -> bool:
    """Whether a later attempt may succeed: the connection was lost, or the server is in trouble or overloaded."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error or error.response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
