"""Where OAP's jars are kept: the user's cache, or the run folder where the user has none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from oap_embedded import OapEmbeddedError, cache_directory

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings.model import Settings

VARIABLE: Final = "OAP_EMBEDDED_CACHE"


def choose_cache(settings: Settings) -> None:
    """Keep the jars in the run folder where the user's cache folder can't be made, such as in a read-only home."""
    if os.environ.get(VARIABLE):
        return
    try:
        usable = _usable(cache_directory().absolute())
    except OapEmbeddedError:
        usable = False
    if not usable:
        os.environ[VARIABLE] = str(settings.run_dir / "jars")


def _usable(cache: Path) -> bool:
    """Say whether the folder exists or can be made. A read-only one counts: it may hold all jars already."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True
