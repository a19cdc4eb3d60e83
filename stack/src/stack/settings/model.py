"""What can be set from outside: environment variables, or a `.env` file at the top of the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stack.settings.basics import HOST, ROOT

DEFAULT_RUN_DIR: Final = ROOT / ".run"

NAME_LIMIT_CHARACTERS: Final = 70
"""Characters of a service's name; OAP cuts longer ones off."""
HEAP_MEGABYTES: Final = 256
"""The least of a heap that OAP starts with, in either runtime."""
SECRETS: Final = frozenset({"postgres_password", "horizon_auth_local_users", "broker_url"})
"""Fields that hold passwords."""
NO_BROKER: Final = "off"
BROKER_SCHEMES: Final = ("redis://", "rediss://", "amqp://", "amqps://")

Port = Annotated[int, Field(ge=1, le=65535)]


def _printable(name: str) -> str:
    if not name.isprintable() or name != name.strip() or len(name) > NAME_LIMIT_CHARACTERS:
        message = f"it must have 1 to {NAME_LIMIT_CHARACTERS} printable characters, with no blank at either end"
        raise ValueError(message)
    return name


def _broker_url(url: SecretStr | None) -> SecretStr | None:
    if url and url.get_secret_value() != NO_BROKER and not url.get_secret_value().startswith(BROKER_SCHEMES):
        message = f"it must begin with one of {', '.join(BROKER_SCHEMES)}, or be {NO_BROKER}"
        raise ValueError(message)
    return url


class Settings(BaseSettings):
    """The stack's settings; every field is a variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=ROOT / ".env", env_ignore_empty=True, extra="ignore")

    runtime: Literal["auto", "native", "compose"] = "auto"
    images: Literal["official", "local"] = "official"
    """Whether Compose pulls its images, or builds them from package registries."""
    storage: Literal["banyandb", "postgresql", "elasticsearch"] = "banyandb"
    """Where the OAP of Compose keeps its data."""
    ui: Literal["classic", "horizon"] = "classic"
    skywalking_ui: str = ""
    """Natively: SkyWalking's own UI out of this file or folder, or `download`."""
    skywalking_ui_url: str = "https://archive.apache.org/dist/skywalking/10.1.0/apache-skywalking-apm-10.1.0.tar.gz"
    """What `download` fetches; its SHA-512 is published beside it."""
    postgres_password: SecretStr | None = None
    """A random one is made where one is needed and none is set; the same goes for Horizon's login."""
    horizon_auth_local_users: SecretStr | None = None
    broker_url: Annotated[SecretStr | None, AfterValidator(_broker_url)] = None
    """The broker of Celery and the message queue. Without one the stack brings its own; `off` means none."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Celery workers: more of them take more tasks from the same queue."""
    locust_workers: Annotated[int, Field(ge=0, le=64)] = 0
    """Locust workers behind its page; without any, its one process makes the load itself."""
    service_port: Port = 8000
    oap_grpc_port: Port = 11800
    oap_http_port: Port = 12800
    locust_port: Port = 8089
    locust_master_port: Port = 5557
    """Where Locust's workers find their master, natively with `locust_workers`."""
    console_port: Port = 8088
    ui_port: Port = 8080
    banyandb_http_port: Port = 17913
    redis_port: Port = 6379
    """Of the broker that the native stack brings."""
    rabbitmq_ui_port: Port = 15672
    """Of the management page of Compose's broker."""
    consumer_port: Port = 8100
    """Where the native consumer of the message queue says whether it is healthy."""
    worker_port: Port = 8101
    """Where the first native Celery worker says whether it is healthy; further workers take the ports after it."""
    allowed_hosts: str = ""
    """Names by which the pages may be called beside the loopback ones, separated by commas."""
    service_name: Annotated[str, AfterValidator(_printable)] = "demo-service"
    """The service's name in SkyWalking."""
    start_seconds: Annotated[int, Field(ge=1)] = 900
    """How long a part may take to come up at most, as long as it makes progress."""
    oap_heap: Annotated[str, Field(pattern=r"^[1-9]\d*[mg]$")] = "512m"
    run_dir: Path = DEFAULT_RUN_DIR
    """Storage, logs and sockets; safe to delete after `make down`."""

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        try:
            self.run_dir = self.run_dir.expanduser().resolve()
        except (RuntimeError, OSError) as error:  # no such user, or a circle of links
            message = f"RUN_DIR={self.run_dir} can't be found ({error}): name it by its full path"
            raise ValueError(message) from error
        if not str(self.run_dir).isprintable():
            message = f"RUN_DIR={str(self.run_dir)!r} has a character in it that can't be printed: name another folder"
            raise ValueError(message)
        takers: dict[int, str] = {}
        for name, port in (*self.ports.items(), *(("WORKER_PORT", port) for port in self.worker_ports[1:])):
            if port in takers:
                message = f"{takers[port]} and {name} can't both be {port}: give one of them another port"
                raise ValueError(message)
            takers[port] = name
        if self.heap_megabytes < HEAP_MEGABYTES:
            message = f"OAP_HEAP={self.oap_heap!r} is too small: OAP needs {HEAP_MEGABYTES}m"
            raise ValueError(message)
        if self.images == "local":
            self._take_local_images()
        return self

    def _take_local_images(self) -> None:
        if self.ui == "horizon" or self.storage == "elasticsearch":
            message = "IMAGES=local has PostgreSQL and no UI: leave it out for UI=horizon or STORAGE=elasticsearch"
            raise ValueError(message)
        self.storage = "postgresql"

    @property
    def ports(self) -> dict[str, int]:
        """Every port by the variable that changes it."""
        return {name.upper(): getattr(self, name) for name in type(self).model_fields if name.endswith("_port")}

    @property
    def worker_ports(self) -> range:
        """The port of each native Celery worker."""
        return range(self.worker_port, self.worker_port + self.workers)

    def name_of(self, command: str) -> str:
        """Return the name in SkyWalking of a process beside the service; OAP would cut a longer one off."""
        return f"{self.service_name[: NAME_LIMIT_CHARACTERS - len(command) - 1]}-{command}"

    @property
    def wants_broker(self) -> bool:
        """Whether the endpoints that need a broker are to work."""
        return self.broker_url is None or self.broker_url.get_secret_value() != NO_BROKER

    @property
    def given_broker_url(self) -> str:
        """The URL of the user's own broker; an empty text where the stack is to bring one, or where none is wanted."""
        return self.broker_url.get_secret_value() if self.broker_url and self.wants_broker else ""

    @property
    def rabbitmq_ui_url(self) -> str:
        """Where the management page of Compose's broker is."""
        return f"http://{HOST}:{self.rabbitmq_ui_port}"

    @property
    def heap_megabytes(self) -> int:
        """OAP's heap in MB."""
        return int(self.oap_heap[:-1]) * (1024 if self.oap_heap.endswith("g") else 1)

    @property
    def service_url(self) -> str:
        """Where the service answers."""
        return f"http://{HOST}:{self.service_port}"

    @property
    def oap_url(self) -> str:
        """Where OAP answers queries."""
        return f"http://{HOST}:{self.oap_http_port}"

    @property
    def locust_url(self) -> str:
        """Where Locust's web page is once `make load-ui` has started it."""
        return f"http://{HOST}:{self.locust_port}"

    @property
    def console_url(self) -> str:
        """Where the console shows the traces."""
        return f"http://{HOST}:{self.console_port}"

    @property
    def has_ui(self) -> bool:
        """Whether SkyWalking's own UI is part of the stack."""
        if self.runtime == "compose":
            return self.images == "official"
        return bool(self.skywalking_ui) and (self.run_dir / "ui" / "page" / "index.html").is_file()

    @property
    def ui_url(self) -> str:
        """Where that UI is."""
        return f"http://{HOST}:{self.ui_port}"

    @property
    def record(self) -> Path:
        """Where `up` notes the settings of the stack that runs."""
        return self.run_dir / "settings.json"

    def write_record(self) -> None:
        """Note these settings, so that `make verify` after `make up SERVICE_PORT=8001` finds the service."""
        noted = self.model_dump(mode="json", exclude={"run_dir", *SECRETS})
        if self.broker_url:  # the parts' own configuration beside it has it too
            noted["broker_url"] = self.broker_url.get_secret_value()
        self.record.touch(mode=0o600)
        self.record.chmod(0o600)
        self.record.write_text(json.dumps(noted))
