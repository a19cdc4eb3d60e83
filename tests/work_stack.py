"""The service, a Celery worker, a consumer and a broker that can be killed and started again, for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import brokers
import httpx
import psutil
import pytest
from demo_service import ledger
from harness import answers, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


START_SECONDS = 120.0  # a busy machine
VISIBILITY_SECONDS = 6


class Redis:
    """A Redis that keeps what it has confirmed."""

    def __init__(self, folder: Path) -> None:
        server = shutil.which("redis-server") or shutil.which("valkey-server")
        if server is None:
            pytest.skip("there is no redis-server here: apt-get install redis-server")
        self.port = free_port()
        self.url = f"redis://:s3cret@127.0.0.1:{self.port}/0"
        self.log = folder / "redis.log"
        folder.mkdir(parents=True)
        self.command = [server, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self.command += ["--requirepass", "s3cret", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)
        wait_until(lambda: brokers._listens(self.port), self.process, self.log, START_SECONDS)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Rabbit:
    """A RabbitMQ, the same."""

    def __init__(self, folder: Path) -> None:
        if not os.path.exists(brokers.RABBITMQ):  # noqa: PTH110
            pytest.skip("there is no rabbitmq-server here: apt-get install rabbitmq-server")
        folder.mkdir(parents=True)
        self.port, self.mapper, distribution = free_port(), free_port(), free_port()
        self.url = f"amqp://tests:s3cret@127.0.0.1:{self.port}//"
        self.log = folder / "rabbitmq.log"
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text("default_user = tests\ndefault_pass = s3cret\n")
        self.environment = {
            "HOME": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [brokers.RABBITMQ], env={**os.environ, **self.environment}, stdout=output, stderr=output
            )
        wait_until(lambda: brokers._listens(self.port), self.process, self.log, START_SECONDS)

    def kill(self) -> None:
        if self.process is None:
            return
        family = [self.process.pid, *(one.pid for one in psutil.Process(self.process.pid).children(recursive=True))]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.kill()
        subprocess.run(["epmd", "-port", str(self.mapper), "-kill"], capture_output=True, check=False)


class Part:
    """The service, a worker or a consumer."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self.command = [sys.executable, "-m", "demo_service", command]
        self.log = folder / f"{command}.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        port = "SERVICE_PORT" if command == "serve" else "SERVICE_HEALTH_PORT"
        self.environment = {**environment, port: str(self.port)}
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with self.log.open("ab") as output:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(self.command, env=environment, stdout=output, stderr=output)

    def wait_until_ready(self) -> None:
        assert self.process is not None
        wait_until(self.is_ready, self.process, self.log, START_SECONDS)

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def is_ready(self) -> bool:
        return answers(f"{self.url}/health/ready")

    def family(self) -> list[psutil.Process]:
        """Return its processes, itself first."""
        if self.process is None or self.process.poll() is not None:
            return []
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def kill(self) -> None:
        """End all of it at once, as the kernel does when memory is short."""
        for one in self.family():
            one.kill()
        if self.process is not None:
            self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)


class Works:
    """All of it, and what became of the work."""

    def __init__(self, broker: Redis | Rabbit, parts: dict[str, Part], folder: Path) -> None:
        self.broker = broker
        self.service, self.worker, self.consumer = parts["serve"], parts["worker"], parts["consumer"]
        self.client = httpx.Client(base_url=self.service.url, trust_env=False, timeout=60)
        self.folder = folder

    def send(self, path: str, times: int, **query: Any) -> list[httpx.Response]:
        """Send requests, each of which must be accepted."""
        answers = [self.client.get(path, params=query) for _ in range(times)]
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        return answers

    def count(self, variant: str) -> ledger.Count:
        return ledger.read(self.folder).get(variant, ledger.Count())

    def letters(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the dead letters of a request."""
        found = self.client.get("/dead-letters").json()["dead_letters"]
        return [letter for letter in found if letter["trace_id"] == trace_id]

    def wait_until_done(self, variant: str, accepted: int, seconds: float = 120) -> ledger.Count:
        """Wait until all that was accepted is done; whatever is not then is lost."""
        deadline = time.monotonic() + seconds
        while (found := self.count(variant)).lost or len(found.accepted) < accepted:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return found


@contextmanager
def run(kind: str, folder: Path, grpc: str, *parts: str, **settings: str) -> Iterator[Works]:
    """Run a broker, the service and these parts; all the others are there, but not started."""
    broker = Redis(folder / "broker") if kind == "redis" else Rabbit(folder / "broker")
    name = f"works-{uuid4().hex[:6]}"
    environment = {
        "BROKER_URL": broker.url,
        "SERVICE_DATA_DIR": str(folder / "data"),
        "SERVICE_LEDGER_DIR": str(folder / "ledger"),
        "SERVICE_FAULTS_ENABLED": "true",
        "SERVICE_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": grpc,
        **settings,
    }
    names = {"serve": name, "worker": f"{name}-worker", "consumer": f"{name}-consumer"}
    made = {
        command: Part(command, folder, {**environment, "SW_AGENT_NAME": service}) for command, service in names.items()
    }
    with ExitStack() as stack:
        stack.callback(broker.close if isinstance(broker, Rabbit) else broker.kill)
        for part in made.values():
            stack.callback(part.kill)
        for command in ("serve", *parts):  # they wait for the broker
            made[command].launch()
        broker.start()
        for command in ("serve", *parts):
            made[command].wait_until_ready()
        yield Works(broker, made, folder / "ledger")
