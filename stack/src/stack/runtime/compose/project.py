"""The Compose project of these settings: its files, profiles and variables, and running `docker compose`."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from stack.runtime import passwords
from stack.runtime.alarm_secret import alarm_secret
from stack.runtime.engine import EngineError, ask_docker, has_buildx, last_line
from stack.settings import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings


RABBITMQ_USER: Final = "demo"
"""As in compose.yaml."""


class Project:
    """The arguments and the environment of `docker compose`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log: Path = settings.run_dir / "log" / "compose.log"
        local = settings.images == "local"
        files = ["compose.yaml"]
        files += ["compose.local.yaml"] if local else []
        files += ["compose.horizon.yaml"] if settings.ui == "horizon" else []
        self.words = ["compose", "--project-directory", str(ROOT)]
        for file in files:
            self.words += ["--file", str(ROOT / file)]
        self.scale: list[str] = []
        if settings.storage != "banyandb" and not local:
            self.words += ["--profile", settings.storage]
            self.scale += ["--scale", "banyandb=0"]
        # The endpoints of Celery and the queue should work after `make up`, so it brings a broker unless told not to.
        if settings.wants_broker:
            self.words += ["--profile", "worker" if settings.given_broker_url else "queue"]
            self.scale += ["--scale", f"worker={settings.workers}"] if settings.workers > 1 else []
        if settings.locust_workers:
            self.words += ["--profile", "scale"]
            self.scale += ["--scale", f"loadtest-worker={settings.locust_workers}"]

    @cached_property
    def environment(self) -> dict[str, str]:
        """The variables that the files ask for."""
        settings = self.settings
        values = {name: str(port) for name, port in settings.ports.items()}
        values |= {"SERVICE_NAME": settings.service_name, "STORAGE": settings.storage}
        if secret := alarm_secret(settings.run_dir):
            values["ALARM_SECRET"] = secret
        if "oap_heap" in settings.model_fields_set:  # the official OAP has another default
            values["OAP_HEAP"] = settings.oap_heap
        if settings.locust_workers:
            values["LOCUST_MASTER"] = "true"
        values["BROKER_URL"] = settings.given_broker_url
        password = passwords.load(settings).get(passwords.RABBITMQ_PASSWORD)
        if password and settings.wants_broker and not settings.given_broker_url:
            values["BROKER_URL"] = f"amqp://{RABBITMQ_USER}:{password}@rabbitmq:5672//"
        if not has_buildx():
            values["DOCKER_BUILDKIT"] = "0"
        # Compose finds those that the user has set by itself.
        made = {
            name: value for name, value in passwords.load(settings).items() if not getattr(settings, name.lower(), None)
        }
        return made | values

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The files as Compose understands them.

        Raises:
            EngineError: it does not.
        """
        try:
            found: dict[str, Any] = json.loads(self.ask("config", "--format", "json"))
        except subprocess.CalledProcessError as error:
            reason = f"Compose can't read its files ({last_line(error.stderr)})"
            raise EngineError(reason, "correct them") from error
        return found

    @property
    def services(self) -> list[str]:
        """The names of the parts."""
        return list(self.configuration["services"])

    @property
    def wanted(self) -> list[str]:
        """The parts that are to run."""
        idle = {word.removesuffix("=0") for word in self.scale if word.endswith("=0")}
        return [name for name in self.services if name not in idle]

    @property
    def port_names(self) -> list[str]:
        """The variables of the ports that the wanted parts publish."""
        published = {
            int(port["published"])
            for name in self.wanted
            for port in self.configuration["services"][name].get("ports", [])
        }
        return [name for name, port in self.settings.ports.items() if port in published]

    def ask(self, *words: str) -> str:
        """Return what `docker compose` prints; see `ask_docker` for what it raises."""
        return ask_docker(*self.words, *words, environment=self.environment, seconds=60)

    def run(self, *words: str, log: Path | None = None) -> int:
        """Run `docker compose` and return its exit code; its output replaces what is in `log`."""
        command = ["docker", *self.words, *words]
        environment = {**os.environ, **self.environment}
        if log is None:
            return subprocess.run(command, check=False, env=environment).returncode  # noqa: S603  # our own command line
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            return subprocess.run(  # noqa: S603  # our own command line
                command, check=False, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            ).returncode
