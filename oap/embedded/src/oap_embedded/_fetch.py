"""Fetching OAP: in parallel, resumable, every byte held against the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import certifi
import httpx
import stamina
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from oap_embedded._errors import OapEmbeddedError
from oap_embedded._lock import Jar, read_lock, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CENTRAL: Final = "https://repo.maven.apache.org/maven2"
MIRROR_VARIABLE: Final = "MAVEN_MIRROR_URL"
CONNECTIONS: Final = 8
TIMEOUT: Final = 30.0  # s without a byte
ATTEMPTS: Final = 4
_CHUNK: Final = 1 << 16

_MIRROR_HINT: Final = f"check the network, or name a mirror in {MIRROR_VARIABLE}"


def cache_directory() -> Path:
    """Where the jars are kept: `OAP_EMBEDDED_CACHE`, else a folder in the user's cache."""
    if own := os.environ.get("OAP_EMBEDDED_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "background-tracing-stack" / "oap"


def fetch(cache: Path | None = None, jars: Sequence[Jar] | None = None, mirror: str | None = None) -> list[Path]:
    """Return the paths of all jars, fetching those that are not in the cache or not what the lock says.

    Raises:
        OapEmbeddedError: a jar could not be had, or is not the one of the lock.
    """
    cache = cache or cache_directory()
    jars = read_lock() if jars is None else jars
    mirror = (mirror or os.environ.get(MIRROR_VARIABLE) or CENTRAL).rstrip("/")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache):
            missing = _missing(cache, jars)
            if missing:
                _check_room(cache, missing)
                _fetch_all(cache, missing, mirror)
    except OSError as error:
        raise OapEmbeddedError(_describe(error, cache)) from error
    return [cache / jar.name for jar in jars]


def _missing(cache: Path, jars: Sequence[Jar]) -> list[Jar]:
    """Hash the whole cache: 135 MB take 0.2 s, less than any bookkeeping about what was checked before is worth."""

    def is_right(jar: Jar) -> bool:
        path = cache / jar.name
        return path.is_file() and path.stat().st_size == jar.size and sha256(path) == jar.sha256

    with ThreadPoolExecutor() as pool:
        return [jar for jar, right in zip(jars, pool.map(is_right, jars), strict=True) if not right]


def _fetch_all(cache: Path, jars: Sequence[Jar], mirror: str) -> None:
    # The system's certificates, which a company's proxy is in, and the bundled ones, where the system has none.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    limits = httpx.Limits(max_connections=CONNECTIONS)
    with (
        httpx.Client(verify=context, timeout=TIMEOUT, limits=limits, follow_redirects=True) as client,
        _progress(jars) as advance,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        running = [pool.submit(_fetch_one, client, f"{mirror}/{jar.path}", cache, jar, advance) for jar in jars]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(client: httpx.Client, url: str, cache: Path, jar: Jar, advance: Callable[[int], None]) -> None:
    part = cache / f"{jar.name}.part"
    try:
        for attempt in stamina.retry_context(on=_is_passing, attempts=ATTEMPTS, wait_initial=0.5, wait_max=5.0):
            with attempt:
                _download(client, url, part, jar.size, advance)
    except httpx.HTTPStatusError as error:
        message = f"{url} answered {error.response.status_code}: {_MIRROR_HINT}"
        raise OapEmbeddedError(message) from error
    except httpx.HTTPError as error:
        message = f"{url} can't be fetched ({error or type(error).__name__}): {_MIRROR_HINT}"
        raise OapEmbeddedError(message) from error
    if (found := sha256(part)) != jar.sha256:
        part.unlink()
        message = f"{url} is not the jar of the lock: expected SHA-256 {jar.sha256}, got {found}; it was deleted"
        raise OapEmbeddedError(message)
    part.replace(cache / jar.name)


def _download(client: httpx.Client, url: str, part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Fetch what is missing of a file, behind what an earlier run has left of it."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        part.unlink()  # of another jar, or damaged
        have = 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = have and response.status_code == httpx.codes.PARTIAL_CONTENT
        advance(have if resumed else 0)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes(_CHUNK):
                file.write(chunk)
                advance(len(chunk))


def _is_passing(error: Exception) -> bool:
    """Tell a fault that may pass (a lost connection, a server in trouble) from an answer."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.is_server_error
    return isinstance(error, httpx.TransportError)


@contextmanager
def _progress(jars: Sequence[Jar]) -> Iterator[Callable[[int], None]]:
    total = sum(jar.size for jar in jars)
    console = Console(stderr=True)
    console.print(f"fetching SkyWalking OAP: {len(jars)} jars, {total / 1e6:.0f} MB (kept for next time)")
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("OAP", total=total)
            yield lambda count: progress.advance(task, count)
        return
    done, step = 0, 0

    def advance(count: int) -> None:
        nonlocal done, step
        done += count
        if done * 4 // total > step:
            step = done * 4 // total
            console.print(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    yield advance


def _check_room(cache: Path, jars: Sequence[Jar]) -> None:
    need = sum(jar.size for jar in jars)
    if shutil.disk_usage(cache).free < need:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _describe(error: OSError, cache: Path) -> str:
    where = f"the cache {cache}"
    if error.errno == errno.ENOSPC:
        return f"the disk of {where} is full: free some space, or name another folder in OAP_EMBEDDED_CACHE"
    return f"{where} can't be used ({error.strerror}): name another folder in OAP_EMBEDDED_CACHE"


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keep two runs from writing the same file; the second waits and finds the work done."""
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
