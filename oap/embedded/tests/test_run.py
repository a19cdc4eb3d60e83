"""What happens before OAP starts; OAP itself is in the trace tests."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from oap_embedded import OapEmbeddedError
from oap_embedded import _run as run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def options(tmp_path: Path) -> run.Options:
    return run.Options(tmp_path / "data", "127.0.0.1", 1, 2, None, "64m")


def test_the_overlay_lies_over_the_packages_own_files(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    (overlay / "oal").mkdir(parents=True)
    (overlay / "oal" / "core.oal").write_text("mine")
    (overlay / "alarm-settings.yml").write_text("rules: {}")
    target = tmp_path / "config"
    target.mkdir()
    (target / "left-over.yml").touch()
    run.assemble(target, overlay)
    assert (target / "oal" / "core.oal").read_text() == "mine"
    assert (target / "alarm-settings.yml").exists()
    assert "storage:" in (target / "application.yml").read_text()
    assert not (target / "left-over.yml").exists()


def test_a_data_folder_in_use_is_said_so(options: run.Options) -> None:
    options.data.mkdir()
    with (options.data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OapEmbeddedError, match=r"another OAP uses .* --data"):
            run._claim(options.data)
    run._claim(options.data)


def test_a_full_disk_is_said_so(options: run.Options, monkeypatch: pytest.MonkeyPatch) -> None:
    options.data.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(OapEmbeddedError, match="less than 500 MB are free"):
        run._claim(options.data)


@pytest.mark.parametrize(("folder", "words"), [("a b", "only from plain paths"), ("file/x", "can't be used")])
def test_the_command_line_ends_with_one_sentence(
    tmp_path: Path, folder: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "oap_embedded", "run", "--data", str(tmp_path / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert words in line


def test_java_gets_its_arguments_whole(options: run.Options, tmp_path: Path) -> None:
    text = run._arguments(options, tmp_path, tmp_path, [tmp_path / 'a "b".jar', tmp_path / "c\\d.jar"])
    assert '"-Xmx64m"\n' in text
    assert r"a \"b\".jar" in text
    assert r"c\\d.jar" in text
