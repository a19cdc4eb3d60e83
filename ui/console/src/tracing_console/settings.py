"""The console's settings, all from `CONSOLE_*` environment variables."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict
from request_guard import names

CLASSIC: Final = "/traces/{trace_id}"
"""Where the classic UI shows a trace, over a storage that has whole traces."""

_HTTP: Final = TypeAdapter(HttpUrl)


def _checked(url: str) -> str:
    return str(_HTTP.validate_python(url)).rstrip("/")


Url = Annotated[str, AfterValidator(_checked)]


class Settings(BaseSettings):
    """What can be set from outside."""

    model_config = SettingsConfigDict(env_prefix="CONSOLE_", env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8088
    allowed_hosts: str = ""
    """Names by which browsers may call the console beside the loopback ones, separated by commas: without it, a page
    of somebody else that points its own name at this machine (DNS rebinding) could read traces and press buttons."""
    oap_url: Url = "http://127.0.0.1:12800"
    service_url: Url = "http://127.0.0.1:8000"
    service_name: Annotated[str, Field(min_length=1)] = "demo-service"
    """The service's name in SkyWalking."""
    worker_name: str = "demo-worker"
    """The name of the service's worker there, whose tasks belong to the timeline too."""
    ui_url: Url | None = None
    """SkyWalking's own UI as the browser reaches it; links to it appear while it answers. It must be of OAP's version:
    the UI of 10.4 stays black over the OAP 10.1 that runs natively."""
    ui_check_url: Url | None = None
    """The same as the console reaches it, where that is another address: in a container."""
    ui_trace_path: str = CLASSIC
    """Where that UI shows a trace; Horizon's is `/layer/general/trace?traceId={trace_id}`."""

    @property
    def hosts(self) -> frozenset[str]:
        """Every name that a browser may use for the console."""
        return names(self.allowed_hosts)

    @property
    def services(self) -> tuple[str, ...]:
        """The names in SkyWalking of what the timeline draws."""
        return tuple(name for name in (self.service_name, self.worker_name) if name)

    @property
    def has_classic_ui(self) -> bool:
        """Whether that UI is the classic one and not Horizon."""
        return self.ui_trace_path == CLASSIC

    def ui_link(self, trace_id: str) -> str:
        """Where SkyWalking's UI shows a trace."""
        return f"{self.ui_url}{self.ui_trace_path.format(trace_id=quote(trace_id, safe=''))}"
