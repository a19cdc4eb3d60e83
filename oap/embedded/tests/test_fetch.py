"""The jars arrive complete and right, or one sentence says why not."""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path

import pytest
from oap_embedded import OapEmbeddedError, cache_directory, fetch
from oap_embedded.__main__ import main

CONTENT = bytes(range(256)) * 1000


def test_every_jar_is_fetched_once_and_a_second_run_asks_for_nothing(mirror, tmp_path):
    jars = [mirror.add(f"org.demo:part{number}:1.0", CONTENT + bytes([number])) for number in range(20)]
    paths = fetch(tmp_path / "cache", jars, mirror.url)
    assert [path.read_bytes() for path in paths] == [CONTENT + bytes([number]) for number in range(20)]
    assert len(mirror.requests) == 20
    assert fetch(tmp_path / "cache", jars, mirror.url) == paths
    assert len(mirror.requests) == 20
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_damaged_file_in_the_cache_is_fetched_again(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    (path,) = fetch(tmp_path, [jar], mirror.url)
    path.write_bytes(CONTENT[:-1] + b"!")
    fetch(tmp_path, [jar], mirror.url)
    assert path.read_bytes() == CONTENT


def test_a_partial_file_is_continued_where_it_ended(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    (tmp_path / f"{jar.name}.part").write_bytes(CONTENT[:1000])
    (path,) = fetch(tmp_path, [jar], mirror.url)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in mirror.requests] == ["bytes=1000-"]


def test_a_partial_file_is_begun_anew_where_the_mirror_cannot_resume(mirror, tmp_path):
    mirror.ranges = False
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    (tmp_path / f"{jar.name}.part").write_bytes(CONTENT[:1000])
    (path,) = fetch(tmp_path, [jar], mirror.url)
    assert path.read_bytes() == CONTENT
    assert len(mirror.requests) == 1


@pytest.mark.parametrize("left", [b"damaged" * 10, b"!" * len(CONTENT), b"!" * (len(CONTENT) + 1)])
def test_a_damaged_partial_file_heals_itself(mirror, tmp_path, left):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    (tmp_path / f"{jar.name}.part").write_bytes(left)
    (path,) = fetch(tmp_path, [jar], mirror.url)
    assert path.read_bytes() == CONTENT


def test_another_file_than_the_one_of_the_lock_is_refused_and_deleted(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    mirror.add("org.demo:a:1.0", CONTENT[::-1])
    with pytest.raises(OapEmbeddedError, match=rf"a-1\.0\.jar is not the jar of the lock .*{jar.sha256}.* deleted"):
        fetch(tmp_path, [jar], mirror.url)
    assert not list(tmp_path.glob("a-1.0*"))


def test_a_jar_that_the_mirror_lacks_is_named_at_once(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    mirror.files.clear()
    with pytest.raises(OapEmbeddedError, match=r"has no such file \(404\) for .*a-1\.0\.jar.*MAVEN_MIRROR_URL"):
        fetch(tmp_path, [jar], mirror.url)
    assert len(mirror.requests) == 1


def test_a_mirror_in_trouble_is_asked_again(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    mirror.troubles = [503, 429]
    (path,) = fetch(tmp_path, [jar], mirror.url)
    assert path.read_bytes() == CONTENT


def test_a_mirror_that_stays_in_trouble_is_given_up(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    mirror.troubles = [503] * 9
    with pytest.raises(OapEmbeddedError, match="answered 503"):
        fetch(tmp_path, [jar], mirror.url)
    assert len(mirror.requests) == 3


def test_a_mirror_that_is_away_is_named(mirror, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    with pytest.raises(OapEmbeddedError, match=rf"127\.0\.0\.1:{port}.* can't be fetched .*MAVEN_MIRROR_URL"):
        fetch(tmp_path, [jar], f"http://127.0.0.1:{port}")


def test_a_full_disk_is_called_so(mirror, tmp_path, monkeypatch):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    opened = Path.open

    def full(path, mode="r", *arguments, **options):
        if path.suffix == ".part" and mode != "rb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OapEmbeddedError, match=r"disk of the cache .* is full.*OAP_EMBEDDED_CACHE"):
        fetch(tmp_path, [jar], mirror.url)


def test_a_cache_that_cannot_be_made_is_called_so(mirror, tmp_path):
    (tmp_path / "file").touch()
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    with pytest.raises(OapEmbeddedError, match=r"the cache .*file/cache can't be used .*OAP_EMBEDDED_CACHE"):
        fetch(tmp_path / "file" / "cache", [jar], mirror.url)


def test_a_complete_cache_is_not_written_to(mirror, tmp_path):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    fetch(tmp_path, [jar], mirror.url)
    (tmp_path / ".lock").unlink()
    fetch(tmp_path, [jar], mirror.url)
    assert [path.name for path in tmp_path.iterdir()] == [jar.name]


def test_two_runs_at_once_fetch_every_jar_once(mirror, tmp_path):
    jars = [mirror.add(f"org.demo:part{number}:1.0", CONTENT) for number in range(20)]
    threads = [threading.Thread(target=fetch, args=(tmp_path, jars, mirror.url)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((tmp_path / jar.name).read_bytes() == CONTENT for jar in jars)
    assert len(mirror.requests) == 20


def test_mirror_and_cache_come_from_the_environment(mirror, tmp_path, monkeypatch):
    jar = mirror.add("org.demo:a:1.0", CONTENT)
    monkeypatch.setenv("MAVEN_MIRROR_URL", mirror.url + "/")
    monkeypatch.setenv("OAP_EMBEDDED_CACHE", str(tmp_path / "own"))
    assert fetch(jars=[jar]) == [tmp_path / "own" / jar.name]
    monkeypatch.delenv("OAP_EMBEDDED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "background-tracing-stack" / "oap"


def test_the_command_line_answers_trouble_with_one_sentence_and_1(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAVEN_MIRROR_URL", mirror.url)
    monkeypatch.setenv("OAP_EMBEDDED_CACHE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["oap-embedded", "fetch"])
    assert main() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("oap: 127.0.0.1 has no such file (404)")
