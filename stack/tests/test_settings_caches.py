"""Where OAP's jars go where the user has no cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oap_embedded import OapEmbeddedError
from stack.runtime.native.parts import native_parts
from stack.settings import caches
from stack.settings.caches import VARIABLE, choose_cache

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "put back afterwards")
    monkeypatch.delenv(VARIABLE)


def test_a_usual_cache_is_taken(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choose_cache(settings)
    assert _oap_cache(settings).startswith(str(tmp_path))


@pytest.mark.parametrize("home", [None, "/proc/none", "/dev/null"])
def test_without_one_it_is_in_the_run_folder(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is None:

        def fail() -> Path:
            raise OapEmbeddedError("this user has no home folder")

        monkeypatch.setattr(caches, "cache_directory", fail)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    choose_cache(settings)
    assert _oap_cache(settings) == str(settings.run_dir / "jars")


def test_ones_own_is_never_changed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/dev/null/mine")
    choose_cache(settings)
    assert _oap_cache(settings) == "/dev/null/mine"


def _oap_cache(settings: Settings) -> str:
    return next(part for part in native_parts(settings) if part.name == "oap").environment[VARIABLE]
