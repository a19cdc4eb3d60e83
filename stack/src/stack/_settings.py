"""What can be set from outside: environment variables, or a `.env` file at the top of the repository."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT: Final = Path(__file__).resolve().parents[3]
HOST: Final = "127.0.0.1"
"""Nothing of the stack listens anywhere else: it has no passwords."""

Port = Annotated[int, Field(ge=1, le=65535)]


class UsageError(Exception):
    """One sentence about what was asked for and can't be done as asked."""


class Settings(BaseSettings):
    """The stack's settings; every field is a variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=ROOT / ".env", extra="ignore")

    runtime: Literal["auto", "native"] = "auto"
    service_port: Port = 8000
    oap_grpc_port: Port = 11800
    oap_http_port: Port = 12800
    locust_port: Port = 8089
    service_name: str = "demo-service"
    """The service's name in SkyWalking."""
    oap_heap: Annotated[str, Field(pattern=r"^\d+[mg]$")] = "512m"
    run_dir: Path = ROOT / ".run"
    """Storage, logs and sockets; safe to delete after `make down`."""

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        self.run_dir = self.run_dir.expanduser().resolve()
        twice = [str(port) for port, count in Counter(self.ports.values()).items() if count > 1]
        if twice:
            message = f"two parts can't share port {', '.join(twice)}"
            raise ValueError(message)
        return self

    @property
    def ports(self) -> dict[str, int]:
        """Every port by the variable that changes it."""
        return {name.upper(): getattr(self, name) for name in type(self).model_fields if name.endswith("_port")}

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


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        UsageError: a variable has a value that it can't have.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, item['loc'])).upper()}={item['input']!r}: {item['msg']}"
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        )
        raise UsageError("; ".join(problems)) from error
