"""Where OAP's jars are kept: the user's cache, or the run folder where the user has none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oap_embedded import OapEmbeddedError, cache_directory

if TYPE_CHECKING:
    from pathlib import Path

    from stack._settings import Settings

VARIABLE: Final = "OAP_EMBEDDED_CACHE"


def choose_cache(settings: Settings) -> None:
    """Let it be the run folder where the user's cache can't be made: without a home folder, or with a read-only one."""
    if os.environ.get(VARIABLE):
        return
    try:
        usable = _usable(cache_directory().absolute())
    except OapEmbeddedError:
        usable = False
    if not usable:
        os.environ[VARIABLE] = str(settings.run_dir / "jars")


def _usable(cache: Path) -> bool:
    """Say whether the folder is there, or can be made; a read-only one may be complete."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True
