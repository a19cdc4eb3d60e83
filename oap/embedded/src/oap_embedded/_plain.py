"""A folder with a plain name for OAP's configuration.

OAP opens its files by the path of a URL, without decoding it: a space in a folder's name is `%20` to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from oap_embedded._errors import OapEmbeddedError

OTHER_DATA: Final = "name another folder with --data (RUN_DIR of `make up`)"


def is_plain(path: Path) -> bool:
    """Say whether a path looks the same in a URL, and on a class path."""
    return quote(str(path)) == str(path)


def folder(data: Path) -> Path:
    """Return where the configuration belongs: the data folder, or a private one in the place of an odd name.

    Raises:
        OapEmbeddedError: no folder for temporary files has a plain name either, or lets one be made.
    """
    if is_plain(data):
        return data
    for found in _instead(data):
        with suppress(OSError):
            found.mkdir(mode=0o700)
        if _is_private(found):
            return found
    message = f"OAP can't read its configuration from {data}, and no folder with a plain name can be made in TMPDIR"
    raise OapEmbeddedError(f"{message}: name another one in TMPDIR, or {OTHER_DATA}")


def forget(data: Path) -> None:
    """Delete the folder that `folder` has made in the place of this one, if it has."""
    for found in [] if is_plain(data) else _instead(data):
        if _is_private(found):
            shutil.rmtree(found, ignore_errors=True)


def _instead(data: Path) -> list[Path]:
    name = f"oap-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"
    places = dict.fromkeys(Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"))  # noqa: S108
    return [place / name for place in places if is_plain(place)]


def _is_private(path: Path) -> bool:
    """Say whether the folder is there, and nobody else's: everybody may make one in `/tmp` under any name."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and found.st_uid == os.geteuid() and not found.st_mode & 0o077
