"""Real brokers for the tests, each in a folder and on ports of its own; what is not installed is skipped aloud."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from harness import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on the PATH wants to be another user
PASSWORD = "p@ss/word!1"  # nobody must ever read it in a trace


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run Redis; yield its URL without a database's number."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        pytest.skip("there is no redis-server here: apt-get install redis-server")
    port = free_port()
    folder.mkdir(parents=True)
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--requirepass", PASSWORD]
    with _running([*command, "--save", "", "--appendonly", "no"], port, folder / "redis.log", {}):
        yield f"redis://:p%40ss%2Fword!1@127.0.0.1:{port}"


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """Run RabbitMQ; yield its URL without a virtual host."""
    if not Path(RABBITMQ).exists():
        pytest.skip("there is no rabbitmq-server here: apt-get install rabbitmq-server")
    port, distribution, mapper = free_port(), free_port(), free_port()
    folder.mkdir(parents=True)
    (folder / "plugins").write_text("[].")
    (folder / "rabbitmq.conf").write_text("default_user = tests\ndefault_pass = p@ss/word!1\n")
    environment = {
        "HOME": str(folder),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_NODENAME": f"tests{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    # Erlang's name service, in front: as the daemon that the server starts otherwise it would stay for good.
    names = subprocess.Popen(["epmd", "-port", str(mapper), "-address", "127.0.0.1"])
    try:
        wait_until(lambda: _listens(mapper), names, folder / "plugins", 90)
        with _running([RABBITMQ], port, folder / "rabbitmq.log", environment):
            yield f"amqp://tests:p%40ss%2Fword!1@127.0.0.1:{port}"
    finally:
        names.kill()
        names.wait()


@contextmanager
def _running(command: list[str], port: int, log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        wait_until(lambda: _listens(port), process, log, 90)
        yield
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
