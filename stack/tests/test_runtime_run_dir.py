"""Which folders are taken as the run folder, and which are somebody else's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from stack.runtime import NativeRuntime
from stack.runtime.run_dir import MARKER, clear, prepare
from stack.settings import ROOT, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings


def test_a_new_an_empty_and_ones_own_folder_are_taken(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "new")
    assert (tmp_path / "a" / "new").stat().st_mode & 0o777 == 0o700
    prepare(tmp_path / "a" / "new")
    empty = tmp_path / "empty"
    empty.mkdir()
    prepare(empty)
    (empty / "whatever").touch()
    prepare(empty)


def test_the_folder_of_a_stack_of_before_is_taken(tmp_path: Path) -> None:
    for name in ("log", "oap", "lock", "settings.json"):
        (tmp_path / name).touch()
    prepare(tmp_path)


@pytest.mark.parametrize("name", ["photos", "log"])
def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"RUN_DIR=.* holds other files: name a folder of its own"):
        prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_clean_deletes_nothing_of_the_repository(settings: Settings) -> None:
    settings.run_dir = ROOT
    with pytest.raises(UsageError, match="holds other files"):
        NativeRuntime(settings).clean()
    assert (ROOT / "oap").is_dir()
    settings.run_dir = ROOT / ".run" / "never"  # what the fixture ends


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders away")
def test_a_folder_of_somebody_else_is_refused_to_root_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepare(run)
    os.chown(run, 4711, 4711)
    with pytest.raises(UsageError, match="belongs to another user"):
        prepare(run)
    with pytest.raises(UsageError, match=r"is in .*/run, which another user owns"):
        prepare(run / "inside")


def test_a_folder_where_everybody_may_rename_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(UsageError, match=r"is in .*/shared, which everybody may write in"):
        prepare(place / "run")
    place.chmod(0o1777)  # as /tmp
    prepare(place / "run")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="RUN_DIR="):
            prepare(path)


def test_what_is_cleared_stays_known(tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    (tmp_path / "run" / "mine").touch()
    clear(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {MARKER, "mine"}
    prepare(tmp_path / "run")


def test_a_backslash_is_refused_before_anything_starts(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.run_dir = tmp_path / "a\\b"
    assert NativeRuntime(settings).up() == 1
    out = capsys.readouterr().out
    assert "OAP's H2 reads a \\ in a path as a /: name another folder in RUN_DIR" in out
    assert "nothing was started" in out
    assert not (tmp_path / "a\\b" / "oap").exists()
