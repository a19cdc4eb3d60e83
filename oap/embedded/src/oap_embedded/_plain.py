"""A place for OAP's configuration that OAP can read: it takes a URL's path for a file's name, with each `%20` in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

from oap_embedded._errors import OapEmbeddedError

OTHER_DATA: Final = "name another folder with --data (RUN_DIR of `make up`)"
_NOTE: Final = "elsewhere"
"""The file in the data folder that says where its configuration is."""


def is_plain(path: Path) -> bool:
    """Say whether a path looks the same in a URL, and on a class path."""
    return quote(str(path)) == str(path)


def folder(data: Path) -> Path:
    """Return where the configuration belongs: the data folder, or a private one in the place of an odd name.

    Raises:
        OapEmbeddedError: no folder for temporary files has a plain name either.
        OSError: it can't be made.
    """
    if is_plain(data):
        return data
    note = data / _NOTE
    if note.exists() and _is_private(earlier := Path(note.read_text(encoding="utf-8"))):
        return earlier
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  # mkdtemp makes a private folder in it
        if is_plain(Path(place)) and os.access(place, os.W_OK | os.X_OK):
            found = Path(tempfile.mkdtemp(prefix="oap-", dir=place)).resolve()
            if is_plain(found):
                note.write_text(str(found), encoding="utf-8")
                return found
            found.rmdir()
    message = f"OAP can't read its configuration from {data}, and TMPDIR names no plainly named folder either"
    raise OapEmbeddedError(f"{message}: name one in TMPDIR, or {OTHER_DATA}")


def forget(data: Path) -> None:
    """Delete the folder that `folder` has made in the place of this one, if it has."""
    note = data / _NOTE
    if note.exists():
        if _is_private(found := Path(note.read_text(encoding="utf-8"))):
            shutil.rmtree(found, ignore_errors=True)
        note.unlink()


def _is_private(path: Path) -> bool:
    """Say whether the folder is still there and nobody else's: all temporary files are deleted at times."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and found.st_uid == os.geteuid() and not found.st_mode & 0o077
