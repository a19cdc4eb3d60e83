"""Fetching from a repository that a thread of the test serves."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import pytest
import stamina
from oap_embedded import Jar, OapEmbeddedError, fetch, read_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = {f"jar-{number}": bytes([number]) * (100_000 + number) for number in range(6)}


class Repository(NamedTuple):
    url: str
    requests: list[tuple[str, str | None]]
    broken: dict[str, list[int]]
    """By the end of a path: the status codes that its next requests get."""


def jar(name: str) -> Jar:
    return Jar(hashlib.sha256(CONTENT[name]).hexdigest(), len(CONTENT[name]), f"org.example:{name}:1.0")


JARS = [jar(name) for name in CONTENT]


@pytest.fixture(autouse=True)
def quick_retries() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=3, cap=True):
        yield


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def repository() -> Iterator[Repository]:
    requests: list[tuple[str, str | None]] = []
    broken: dict[str, list[int]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            requests.append((self.path, wanted))
            name = Path(self.path).parts[3]
            if codes := broken.get(name):
                self.send_error(codes.pop(0))
                return
            body = CONTENT[name]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:])

        def log_message(self, *_arguments: object) -> None: ...

    with serving(Handler) as url:
        yield Repository(url, requests, broken)


def test_every_jar_arrives_and_the_second_time_none_is_asked_for(repository: Repository, tmp_path: Path) -> None:
    paths = fetch(tmp_path, JARS, repository.url)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert sorted(path for path, _ in repository.requests) == sorted(
        f"/org/example/{n}/1.0/{n}-1.0.jar" for n in CONTENT
    )
    fetch(tmp_path, JARS, repository.url)
    assert len(repository.requests) == len(JARS)


def test_a_damaged_jar_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    first, *_ = fetch(tmp_path, JARS, repository.url)
    first.write_bytes(b"x" * JARS[0].size)
    fetch(tmp_path, JARS, repository.url)
    assert first.read_bytes() == CONTENT["jar-0"]
    assert len(repository.requests) == len(JARS) + 1


def test_a_started_file_is_continued(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / f"{JARS[1].name}.part").write_bytes(CONTENT["jar-1"][:60_000])
    (path,) = fetch(tmp_path, JARS[1:2], repository.url)
    assert repository.requests[0][1] == "bytes=60000-"
    assert path.read_bytes() == CONTENT["jar-1"]


def test_a_started_file_of_something_else_is_found_out(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / f"{JARS[1].name}.part").write_bytes(b"x" * 60_000)
    with pytest.raises(OapEmbeddedError, match="not the jar of the lock"):
        fetch(tmp_path, JARS[1:2], repository.url)
    assert fetch(tmp_path, JARS[1:2], repository.url)[0].read_bytes() == CONTENT["jar-1"]


def test_another_jar_than_the_locks_is_refused(repository: Repository, tmp_path: Path) -> None:
    wrong = JARS[0]._replace(sha256="0" * 64)
    with pytest.raises(OapEmbeddedError, match=f"expected SHA-256 0{{64}}, got {JARS[0].sha256}"):
        fetch(tmp_path, [wrong], repository.url)
    assert not list(tmp_path.glob("*.jar*"))


def test_a_fault_that_passes_is_waited_out(repository: Repository, tmp_path: Path) -> None:
    repository.broken["jar-2"] = [503, 500]
    assert len(fetch(tmp_path, JARS, repository.url)) == len(JARS)


def test_a_missing_jar_names_its_address(repository: Repository, tmp_path: Path) -> None:
    repository.broken["jar-3"] = [404]
    with pytest.raises(OapEmbeddedError, match=r"jar-3-1.0.jar answered 404: .*MAVEN_MIRROR_URL"):
        fetch(tmp_path, JARS, repository.url)


def test_no_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OapEmbeddedError, match=r"can't be fetched .* name a mirror in MAVEN_MIRROR_URL"):
        fetch(tmp_path, JARS, "http://127.0.0.1:9")


def test_the_mirror_comes_from_the_environment(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAVEN_MIRROR_URL", repository.url + "/")
    monkeypatch.setenv("OAP_EMBEDDED_CACHE", str(tmp_path / "deep" / "cache"))
    assert fetch(jars=JARS)[0].parent == tmp_path / "deep" / "cache"


def test_a_full_disk_is_said_so(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(OapEmbeddedError, match=r"disk of the cache .* is full"):
        fetch(tmp_path, JARS, repository.url)
    monkeypatch.undo()

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OapEmbeddedError, match=r"disk of the cache .* is full"):
        fetch(tmp_path, JARS, repository.url)


def test_a_cache_that_is_no_folder_is_said_so(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OapEmbeddedError, match=r"can't be used .* OAP_EMBEDDED_CACHE"):
        fetch(tmp_path / "file", JARS, repository.url)


def test_the_lock_is_whole() -> None:
    jars = read_lock()
    assert len({jar.name for jar in jars}) == len(jars) > 200
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size > 0 for jar in jars)
    starter = next(jar for jar in jars if ":server-starter:" in jar.coordinates)
    assert starter.path == "org/apache/skywalking/server-starter/10.1.0/server-starter-10.1.0.jar"
    assert Jar("", 1, "io.netty:netty:4:linux").path == "io/netty/netty/4/netty-4-linux.jar"
