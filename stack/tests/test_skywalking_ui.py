"""SkyWalking's own UI without a container: from a made release, a jar, a folder; downloads are from a test's server."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from stack.runtime.native.parts import native_parts
from stack.runtime.native.skywalking_ui import UiUnavailableError, dashboards_of, is_ready, page_of, prepare
from stack.runtime.native.ui_server import create_app
from stack.settings import Settings
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = b"<html>Booster</html>"
DASHBOARD = b'[{"id": "General-Root"}]'


def jar() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("public/index.html", PAGE)
        file.writestr("public/assets/app.js", "1")
        file.writestr("org/apache/Main.class", "no page")
    return written.getvalue()


def release(*more: tuple[str, bytes]) -> bytes:
    written = io.BytesIO()
    top = "apache-skywalking-apm-bin"
    files = [
        (f"{top}/webapp/skywalking-webapp.jar", jar()),
        (f"{top}/config/ui-initialized-templates/general/general-root.json", DASHBOARD),
        (f"{top}/oap-libs/huge.jar", b"x" * 1000),
        *more,
    ]
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def settings(tmp_path: Path, wanted: str, **more: Any) -> Settings:
    return Settings(_env_file=None, run_dir=tmp_path / "run", runtime="native", skywalking_ui=wanted, **more)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/apm.tar.gz"
    server.shutdown()


def test_a_release_is_fetched_checked_and_only_its_ui_is_kept(tmp_path: Path, mirror: tuple[Path, str]) -> None:
    folder, url = mirror
    content = release()
    (folder / "apm.tar.gz").write_bytes(content)
    (folder / "apm.tar.gz.sha512").write_text(f"{hashlib.sha512(content).hexdigest()}  apm.tar.gz\n")
    wanted = settings(tmp_path, "download", skywalking_ui_url=url)
    said = Console(file=io.StringIO(), width=200)
    prepare(said, wanted)
    assert (page_of(wanted) / "index.html").read_bytes() == PAGE
    assert (dashboards_of(wanted) / "general" / "general-root.json").read_bytes() == DASHBOARD
    kept = {path.name for path in (wanted.run_dir / "ui").rglob("*") if path.is_file()}
    assert kept == {"index.html", "app.js", "general-root.json", "source"}
    assert "MB, of which its UI is kept" in said.file.getvalue()  # type: ignore[attr-defined]
    (folder / "apm.tar.gz").unlink()
    prepare(said, wanted)  # it is there already
    parts = {part.name: part for part in native_parts(wanted)}
    assert parts["ui"].ports == {"UI_PORT": 8080}
    assert parts["console"].environment["CONSOLE_UI_URL"] == "http://127.0.0.1:8080"
    assert str(dashboards_of(wanted)) in parts["oap"].command
    assert wanted.has_ui


def test_a_release_that_is_not_the_published_one_is_not_used(tmp_path: Path, mirror: tuple[Path, str]) -> None:
    folder, url = mirror
    (folder / "apm.tar.gz").write_bytes(release())
    (folder / "apm.tar.gz.sha512").write_text(f"{'0' * 128}  apm.tar.gz\n")
    wanted = settings(tmp_path, "download", skywalking_ui_url=url)
    with pytest.raises(UiUnavailableError, match="nothing of it is used"):
        prepare(Console(quiet=True), wanted)
    assert not is_ready(wanted)
    parts = {part.name: part for part in native_parts(wanted)}
    assert "ui" not in parts
    assert "CONSOLE_UI_URL" not in parts["console"].environment


def test_where_nobody_answers_one_sentence_says_so(tmp_path: Path) -> None:
    wanted = settings(tmp_path, "download", skywalking_ui_url="http://127.0.0.1:9/apm.tar.gz")
    with pytest.raises(UiUnavailableError, match="SKYWALKING_UI=download can't be used") as raised:
        prepare(Console(quiet=True), wanted)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["archive", "release folder", "jar", "page folder"])
def test_it_is_taken_from_what_there_is(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "given"
    if kind == "archive":
        source.write_bytes(release())
    elif kind == "jar":
        source.write_bytes(jar())
    elif kind == "release folder":
        (source / "webapp").mkdir(parents=True)
        (source / "webapp" / "skywalking-webapp.jar").write_bytes(jar())
        (source / "config" / "ui-initialized-templates" / "general").mkdir(parents=True)
    else:
        source.mkdir()
        (source / "index.html").write_bytes(PAGE)
    wanted = settings(tmp_path, str(source))
    prepare(Console(quiet=True), wanted)
    assert (page_of(wanted) / "index.html").read_bytes() == PAGE
    assert dashboards_of(wanted).is_dir() == (kind in {"archive", "release folder"})


@pytest.mark.parametrize("content", [b"", b"neither", release()[:200]])
def test_what_is_no_ui_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "given"
    source.write_bytes(content)
    with pytest.raises(UiUnavailableError, match="SKYWALKING_UI="):
        prepare(Console(quiet=True), settings(tmp_path, str(source)))
    with pytest.raises(UiUnavailableError, match="can't be read"):
        prepare(Console(quiet=True), settings(tmp_path, str(tmp_path / "missing")))


def test_no_file_is_written_outside(tmp_path: Path) -> None:
    source = tmp_path / "given"
    source.write_bytes(release(("apm/config/ui-initialized-templates/../../../../evil", b"x")))
    with pytest.raises(UiUnavailableError, match="leads out of it"):
        prepare(Console(quiet=True), settings(tmp_path, str(source)))
    assert not list(tmp_path.rglob("evil"))


def test_the_page_is_served_and_its_questions_reach_oap(tmp_path: Path) -> None:
    page = tmp_path / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_bytes(PAGE)
    (page / "assets" / "app.js").write_text("1")
    asked: list[Any] = []

    class Oap(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": {}}')

        def log_message(self, *_arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Oap)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    app = create_app(page, f"http://127.0.0.1:{server.server_port}")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for path in ("/", "/dashboard/GENERAL/Service/x/Background-Tasks"):
            assert client.get(path).content == PAGE
        assert client.get("/assets/app.js").text == "1"
        assert client.get("/assets/missing.js").status_code == 404
        assert client.post("/graphql", json={"query": "{x}"}).json() == {"data": {}}
        assert asked == [("/graphql", {"query": "{x}"})]
        server.shutdown()
        server.server_close()
        assert client.post("/graphql", json={}).status_code == 502
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
