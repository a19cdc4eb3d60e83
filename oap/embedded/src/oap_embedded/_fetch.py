"""OAP's jars in the user's cache, complete and checked."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from platformdirs import user_cache_path

from oap_embedded._errors import OapEmbeddedError
from oap_embedded._lock import Jar, read_lock, sha256
from oap_embedded._network import MIRROR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CENTRAL: Final = "https://repo.maven.apache.org/maven2"
CACHE_VARIABLE: Final = "OAP_EMBEDDED_CACHE"


def cache_directory() -> Path:
    """Return where the jars are kept: `OAP_EMBEDDED_CACHE`, else a folder in the user's cache.

    Raises:
        OapEmbeddedError: the user has no home folder.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    cache = user_cache_path("background-tracing-stack", appauthor=False)
    if not cache.is_absolute():  # neither HOME nor the list of users has a home folder
        message = f"this user has no home folder to keep OAP's jars in: name a folder in {CACHE_VARIABLE}"
        raise OapEmbeddedError(message)
    return cache / "oap"


def fetch(
    cache: Path | None = None, jars: Sequence[Jar] | None = None, mirror: str | None = None, *, hashed: bool = True
) -> list[Path]:
    """Return the paths of all jars, fetching those that are not in the cache or not what the lock says.

    Args:
        cache: the folder to keep them in; `cache_directory()` if None.
        jars: what to fetch; the lock of this package if None.
        mirror: root of a Maven repository; `MAVEN_MIRROR_URL`, else Maven Central, if None.
        hashed: read every byte of what is there; without it the sizes count, for whoever starts OAP, which reads them.

    Raises:
        OapEmbeddedError: a jar could not be had, or is not the one of the lock.
    """
    cache = (cache or cache_directory()).absolute()
    jars = read_lock() if jars is None else jars
    mirror = (mirror or os.environ.get(MIRROR_VARIABLE) or CENTRAL).rstrip("/")
    try:
        if _missing(cache, jars, hashed=hashed):  # a complete cache may be read-only: nothing is written to it
            cache.mkdir(parents=True, exist_ok=True)
            with _alone(cache):
                if missing := _missing(cache, jars):
                    # Half of the time that OAP's start takes before Java does, and needed once.
                    from oap_embedded._download import download  # noqa: PLC0415

                    _check_room(cache, missing)
                    download(cache, missing, mirror)
    except OSError as error:
        raise OapEmbeddedError(_describe(error, cache)) from error
    return [cache / jar.name for jar in jars]


def _missing(cache: Path, jars: Sequence[Jar], *, hashed: bool = True) -> list[Jar]:
    """Hash the whole cache: 70 MB take 0.1 s, less than any bookkeeping about what was checked before is worth."""

    def is_right(jar: Jar) -> bool:
        path = cache / jar.name
        right_size = path.is_file() and path.stat().st_size == jar.size
        return right_size and (not hashed or sha256(path) == jar.sha256)

    with ThreadPoolExecutor() as pool:
        return [jar for jar, right in zip(jars, pool.map(is_right, jars), strict=True) if not right]


def _check_room(cache: Path, jars: Sequence[Jar]) -> None:
    need = sum(jar.size for jar in jars)
    if shutil.disk_usage(cache).free < need:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _describe(error: OSError, cache: Path) -> str:
    where = f"the cache {cache}"
    if error.errno == errno.ENOSPC:
        return f"the disk of {where} is full: free some space, or name another folder in {CACHE_VARIABLE}"
    return f"{where} can't be used ({error.strerror or error}): name another folder in {CACHE_VARIABLE}"


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keep two runs from writing the same file; the second waits and finds the work done."""
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
