"""The console's settings, all from `CONSOLE_*` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict
from request_guard import names

CLASSIC: Final = "/traces/{trace_id}"
"""The path of a trace in the classic UI; works with a storage that returns whole traces (BanyanDB)."""

_HTTP: Final = TypeAdapter(HttpUrl)


def _checked(url: str) -> str:
    return str(_HTTP.validate_python(url)).rstrip("/")


Url = Annotated[str, AfterValidator(_checked)]


class Settings(BaseSettings):
    """The settings."""

    model_config = SettingsConfigDict(env_prefix="CONSOLE_", env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8088
    allowed_hosts: str = ""
    """Host names, separated by commas, by which browsers may open the console, beside the loopback ones. All others are
    refused: a foreign page whose name leads to this machine (DNS rebinding) could read traces and press buttons."""
    oap_url: Url = "http://127.0.0.1:12800"
    service_url: Url = "http://127.0.0.1:8000"
    service_name: Annotated[str, Field(min_length=1)] = "demo-service"
    """The service's name in SkyWalking."""
    worker_name: str = "demo-worker"
    """The name of the service's worker in SkyWalking. The timeline shows its tasks too."""
    run_dir: Path | None = None
    """The run folder of the stack, where it runs as processes on this machine: guided incidents and `make crash` are
    started and followed from the console. In a container there is none."""
    ui_url: Url | None = None
    """SkyWalking's own UI, as the browser reaches it. Links to it appear while it answers. It must have OAP's version:
    over the native OAP 10.1 the UI of 10.4 shows an empty page."""
    ui_check_url: Url | None = None
    """The same, as the console reaches it, if that is another address (in containers)."""
    ui_trace_path: str = CLASSIC
    """The path of a trace in that UI; Horizon's is `/layer/general/trace?traceId={trace_id}`."""

    @property
    def hosts(self) -> frozenset[str]:
        """Every host name by which browsers may open the console."""
        return names(self.allowed_hosts)

    @property
    def services(self) -> tuple[str, ...]:
        """The services that the timeline draws, by their names in SkyWalking."""
        return tuple(name for name in (self.service_name, self.worker_name) if name)

    @property
    def has_classic_ui(self) -> bool:
        """Whether that UI is the classic one and not Horizon."""
        return self.ui_trace_path == CLASSIC

    def ui_link(self, trace_id: str) -> str:
        """The address of a trace in SkyWalking's UI."""
        return f"{self.ui_url}{self.ui_trace_path.format(trace_id=quote(trace_id, safe=''))}"
