"""The parts of the stack as processes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oap_embedded import cache_directory

from stack.runtime.alarm_secret import alarm_secret
from stack.runtime.native.skywalking_ui import dashboards_of, is_ready, page_of
from stack.settings import HOST, ROOT

if TYPE_CHECKING:
    from stack.settings import Settings


@dataclass(frozen=True)
class Part:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    health: str
    """A URL that answers with success when the part works."""
    ports: tuple[str, ...]
    """The variables of the ports that it listens on."""
    environment: dict[str, str] = field(default_factory=dict)
    on_demand: bool = False
    """Whether it is started only when somebody asks for it, and not by `up`."""
    memory_megabytes: int = 150
    """What it needs, with room for load."""
    quiet_seconds: int = 60
    """Its start is given up after so long without any progress."""
    stop_seconds: int = 10


def native_parts(settings: Settings) -> list[Part]:
    """Return the parts, in the order in which they are shown."""
    python = sys.executable
    oap = [python, "-m", "oap_embedded", "run", "--data", str(settings.run_dir / "oap")]
    oap += ["--overlay", str(ROOT / "oap" / "config"), "--host", HOST, "--heap", settings.oap_heap]
    oap += ["--grpc-port", str(settings.oap_grpc_port), "--http-port", str(settings.oap_http_port)]
    secret = alarm_secret(settings.run_dir)
    if is_ready(settings) and dashboards_of(settings).is_dir():
        oap += ["--dashboards", str(dashboards_of(settings))]
    locust = [python, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--host", settings.service_url]
    locust += ["--class-picker", "--oap-url", settings.oap_url]
    locust += ["--web-host", HOST, "--web-port", str(settings.locust_port)]
    if settings.workers:
        port = str(settings.locust_master_port)
        locust += ["--processes", str(settings.workers), "--master-bind-host", HOST]
        locust += ["--master-bind-port", port, "--master-port", port]
    return [
        Part(
            "oap",
            tuple(oap),
            f"{settings.oap_url}/healthcheck",
            ("OAP_GRPC_PORT", "OAP_HTTP_PORT"),
            {
                "OAP_EMBEDDED_CACHE": str(cache_directory().absolute()),
                # OAP 10.1 sends no headers.
                **({"OAP_EMBEDDED_WEBHOOK": f"{settings.service_url}/alarms?secret={secret}"} if secret else {}),
            },
            memory_megabytes=settings.heap_megabytes + 450,
            quiet_seconds=120,
            stop_seconds=20,
        ),
        Part(
            "service",
            (python, "-m", "demo_service"),
            f"{settings.service_url}/health/ready",
            ("SERVICE_PORT",),
            {
                "SERVICE_HOST": HOST,
                "SERVICE_PORT": str(settings.service_port),
                "SERVICE_DATA_DIR": str(settings.run_dir / "service"),
                **_allowed_hosts("SERVICE", settings),
                "MALLOC_ARENA_MAX": "2",  # 20 MB less for a heap in pieces, under a storm of failing tasks
                "SERVICE_FAULTS_ENABLED": "true",  # to be broken on purpose is what a demo is for
                **({"SERVICE_ALARM_SECRET": secret} if secret else {}),
                "SERVICE_TRACE_URL": f"{settings.console_url}/traces/{{trace_id}}",
                "SW_AGENT_NAME": settings.service_name,
                "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"{HOST}:{settings.oap_grpc_port}",
                "SW_AGENT_LOG_REPORTER_LEVEL": "INFO",
                "SKYWALKING_BACKGROUND_LOG_ENDPOINT": "tag",  # as oap/config/lal/default.yaml reads it
                "SW_AGENT_LOG_REPORTER_LAYOUT": "%(message)s task_id=%(task_id)s",
            },
            memory_megabytes=250,
            stop_seconds=65,  # tasks and then requests may take 25 s each to end, and their segments are delivered
        ),
        Part(
            "console",
            (python, "-m", "tracing_console"),
            f"{settings.console_url}/health",
            ("CONSOLE_PORT",),
            {
                "CONSOLE_HOST": HOST,
                "CONSOLE_PORT": str(settings.console_port),
                **_allowed_hosts("CONSOLE", settings),
                "CONSOLE_OAP_URL": settings.oap_url,
                "CONSOLE_SERVICE_URL": settings.service_url,
                "CONSOLE_SERVICE_NAME": settings.service_name,
            },
        ),
        *([_ui(settings)] if is_ready(settings) else []),
        Part(
            "loadtest",
            tuple(locust),
            settings.locust_url,
            ("LOCUST_PORT", *(("LOCUST_MASTER_PORT",) if settings.workers else ())),
            _allowed_hosts("LOAD", settings),
            on_demand=True,
        ),
    ]


def _ui(settings: Settings) -> Part:
    words = ["-m", "stack.runtime.native.ui_server", str(page_of(settings)), settings.oap_url, str(settings.ui_port)]
    hosts = [settings.allowed_hosts] if settings.allowed_hosts else []
    return Part("ui", (sys.executable, *words, *hosts), f"{settings.ui_url}/internal/l7check", ("UI_PORT",))


def _allowed_hosts(prefix: str, settings: Settings) -> dict[str, str]:
    """Return the host names that are allowed for all parts; without any, a part's own variable counts."""
    return {f"{prefix}_ALLOWED_HOSTS": settings.allowed_hosts} if settings.allowed_hosts else {}
