"""What can be set from outside: environment variables, or a `.env` file at the top of the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ROOT: Final = Path(__file__).resolve().parents[3]
HOST: Final = "127.0.0.1"
"""Nothing of the stack listens anywhere else: it has no passwords."""
DEFAULT_RUN_DIR: Final = ROOT / ".run"

Port = Annotated[int, Field(ge=1, le=65535)]


class UsageError(Exception):
    """One sentence about what was asked for and can't be done as asked."""


class Settings(BaseSettings):
    """The stack's settings; every field is a variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=ROOT / ".env", env_ignore_empty=True, extra="ignore")

    runtime: Literal["auto", "native"] = "auto"
    service_port: Port = 8000
    oap_grpc_port: Port = 11800
    oap_http_port: Port = 12800
    locust_port: Port = 8089
    console_port: Port = 8088
    service_name: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")] = "demo-service"
    """The service's name in SkyWalking."""
    oap_heap: Annotated[str, Field(pattern=r"^[1-9]\d*[mg]$")] = "512m"
    run_dir: Path = DEFAULT_RUN_DIR
    """Storage, logs and sockets; safe to delete after `make down`."""

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        self.run_dir = self.run_dir.expanduser().resolve()
        takers: dict[int, str] = {}
        for name, port in self.ports.items():
            if port in takers:
                message = f"{takers[port]} and {name} can't both be {port}: give one of them another port"
                raise ValueError(message)
            takers[port] = name
        return self

    @property
    def ports(self) -> dict[str, int]:
        """Every port by the variable that changes it."""
        return {name.upper(): getattr(self, name) for name in type(self).model_fields if name.endswith("_port")}

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
    def record(self) -> Path:
        """Where `up` notes the settings of the stack that runs."""
        return self.run_dir / "settings.json"

    def write_record(self) -> None:
        """Note these settings, so that `make verify` after `make up SERVICE_PORT=8001` finds the service."""
        self.record.write_text(self.model_dump_json(exclude={"run_dir", "runtime"}))


def load_settings(*, running: bool = False) -> Settings:
    """Read the settings.

    Args:
        running: take what is not set from the stack that runs, if one does, before the defaults.

    Raises:
        UsageError: a variable has a value that it can't have.
    """
    try:
        given = Settings()
        recorded = _recorded(given) if running else {}
        return Settings(**recorded) if recorded else given
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(problem) for problem in error.errors())) from error


def _recorded(given: Settings) -> dict[str, Any]:
    try:
        recorded: dict[str, Any] = json.loads(given.record.read_text())
        return {name: value for name, value in recorded.items() if name not in given.model_fields_set}
    except (OSError, ValueError):
        return {}


def _sentence(problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    name, value = ".".join(map(str, problem["loc"])).upper(), problem["input"]
    if name.endswith("_PORT"):
        reason = "is no port, which is a number from 1 to 65535"
    elif name == "RUNTIME" and value == "compose":
        reason = "is not there yet: RUNTIME=native runs the stack without Docker"
    elif name == "RUNTIME":
        reason = "is no runtime: it is auto or native"
    elif name == "OAP_HEAP":
        reason = "is no size of a heap, such as 512m or 1g"
    else:
        reason = f"can't be: {problem['msg']}"
    return f"{name}={value!r} {reason}"
