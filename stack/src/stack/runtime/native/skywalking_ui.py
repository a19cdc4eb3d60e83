"""SkyWalking's own UI without a container: its files out of Apache's release, its jar, or a folder, ready to be served.

Only the files of the web page are used, not the Java program around them: that listens on all addresses and answers to
any host name. With a release come the dashboards too, which OAP hands out to the UI and which Maven Central lacks.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from oap_embedded import is_loopback, trusted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from rich.console import Console

    from stack.settings import Settings

_JAR: Final = "webapp/skywalking-webapp.jar"
_PAGE: Final = "public/"
_DASHBOARDS: Final = "config/ui-initialized-templates/"
_TIMEOUT_SECONDS: Final = 30.0  # without a byte
_CHUNK: Final = 1 << 20
_FILE_MAX: Final = 64 << 20
"""Bytes of one file that is unpacked: the largest of the page is some 5 MB, the jar some 40 MB."""


class UiUnavailableError(RuntimeError):
    """The UI can't be had; the text is a sentence for the user."""


def page_of(settings: Settings) -> Path:
    """Where the page's files are, once they are."""
    return settings.run_dir / "ui" / "page"


def dashboards_of(settings: Settings) -> Path:
    """Where the release's dashboards are, if it brought some."""
    return settings.run_dir / "ui" / "dashboards"


def is_ready(settings: Settings) -> bool:
    """Say whether there is a page to serve, and it is wanted."""
    return bool(settings.skywalking_ui) and (page_of(settings) / "index.html").is_file()


def prepare(console: Console, settings: Settings) -> None:
    """Lay the page and the dashboards out in the run folder, from wherever the settings say.

    Raises:
        UiUnavailableError: they can't be had.
    """
    wanted = settings.skywalking_ui
    target = settings.run_dir / "ui"
    noted = target / "source"
    source = Path(wanted).expanduser()
    stamp = settings.skywalking_ui_url if wanted == "download" else _stamp(source)
    if is_ready(settings) and noted.is_file() and noted.read_text() == stamp:
        return
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        if wanted == "download":
            archive = target / "release.tar.gz"
            _download(console, settings.skywalking_ui_url, archive)
            _take_release(archive, target)
            archive.unlink()
        else:
            _take(source, target)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UiUnavailableError(f"SKYWALKING_UI={wanted} can't be used ({error or type(error).__name__})") from error
    if not (target / "page" / "index.html").is_file():
        raise UiUnavailableError(f"SKYWALKING_UI={wanted} has no index.html of SkyWalking's UI in it")
    noted.write_text(stamp)


def _stamp(source: Path) -> str:
    try:
        status = source.stat()
    except OSError as error:
        raise UiUnavailableError(f"SKYWALKING_UI={source} can't be read ({error.strerror})") from error
    return f"{source.absolute()} {status.st_mtime_ns} {status.st_size}"


def _take(source: Path, target: Path) -> None:
    """Take the page out of a release (a folder or an archive), the web application's jar, or a folder with the page."""
    if source.is_dir():
        if (source / "index.html").is_file():
            shutil.copytree(source, target / "page")
        elif (source / _JAR).is_file():
            _take_jar(source / _JAR, target)
            if (source / _DASHBOARDS).is_dir():
                shutil.copytree(source / _DASHBOARDS, target / "dashboards")
    elif tarfile.is_tarfile(source):
        _take_release(source, target)
    else:
        _take_jar(source, target)


def _take_release(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as release:
        for member in release:
            inside = member.name.partition("/")[2]  # below the release's own folder
            if not member.isfile() or member.size > _FILE_MAX:
                continue
            wanted = inside == _JAR or inside.startswith(_DASHBOARDS)
            if wanted and (content := release.extractfile(member)) is not None:
                place = "webapp.jar" if inside == _JAR else f"dashboards/{inside.removeprefix(_DASHBOARDS)}"
                _write(target, place, content)
    jar = target / "webapp.jar"
    if jar.is_file():
        _take_jar(jar, target)
        jar.unlink()


def _take_jar(jar: Path, target: Path) -> None:
    with zipfile.ZipFile(jar) as files:
        for entry in files.infolist():
            if entry.filename.startswith(_PAGE) and not entry.is_dir() and entry.file_size <= _FILE_MAX:
                with files.open(entry) as content:
                    _write(target, f"page/{entry.filename.removeprefix(_PAGE)}", content)


def _write(target: Path, place: str, content: IO[bytes]) -> None:
    """Write a file of an archive, unless its name leads elsewhere."""
    parts = PurePosixPath(place)
    if parts.is_absolute() or ".." in parts.parts:
        raise UiUnavailableError(f"the archive has a file with the name {place[:200]!r}, which leads out of it")
    path = target / parts
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _download(console: Console, url: str, target: Path) -> None:
    """Fetch a release and check it against the SHA-512 beside it.

    Raises:
        OSError: it can't be had.
        UiUnavailableError: it is not what its hash says.
    """
    import httpx  # noqa: PLC0415  # slow to import, and rarely needed

    try:
        with httpx.Client(
            verify=trusted(), timeout=_TIMEOUT_SECONDS, follow_redirects=True, trust_env=not is_loopback(url)
        ) as client:
            _download_by(client, console, url, target)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _download_by(client: httpx.Client, console: Console, url: str, target: Path) -> None:
    published = client.get(f"{url}.sha512").raise_for_status().text
    found = re.search(r"\b[0-9a-fA-F]{128}\b", published)
    if found is None:
        raise UiUnavailableError(f"{url}.sha512 holds no SHA-512")
    hashed = hashlib.sha512()
    with client.stream("GET", url) as answer:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", 0))
        console.print(f"fetching SkyWalking's release, {size / 1e6:,.0f} MB, of which its UI is kept: {url}")
        with target.open("wb") as file:
            for chunk in _chunks(answer):
                hashed.update(chunk)
                file.write(chunk)
    if hashed.hexdigest() != found[0].lower():
        target.unlink()
        raise UiUnavailableError(f"{url} is not what {url}.sha512 says: nothing of it is used")


def _chunks(answer: httpx.Response) -> Iterator[bytes]:
    yield from answer.iter_raw(_CHUNK)
