"""The parts of the stack as processes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from oap_embedded import cache_directory

from stack.runtime.alarm_secret import alarm_secret
from stack.runtime.native.broker import CONFIGURATION, MEMORY_LIMIT_MEGABYTES, find_broker
from stack.runtime.native.skywalking_ui import dashboards_of, is_ready, page_of
from stack.settings import HOST, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from stack.runtime.native.broker import Broker
    from stack.settings import Settings


SOCKET_PATH_LIMIT_BYTES: Final = 100
"""Of a unix socket."""


@dataclass(frozen=True)
class Part:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    health: str
    """A URL that answers with success when the part works; of Redis `redis://…`, without its password; `unix://…` for
    HTTP over a socket of that path."""
    ports: dict[str, int]
    """The ports that it listens on, by the variables that change them."""
    environment: dict[str, str] = field(default_factory=dict)
    on_demand: bool = False
    """Whether it is started only when somebody asks for it, and not by `up`."""
    memory_megabytes: int = 150
    """What it needs, with room for load."""
    quiet_seconds: int = 60
    """Its start is given up after so long without any progress."""
    stop_seconds: int = 10
    stdin: Path | None = None
    """A file that it reads from its standard input."""
    health_password: str = field(default="", repr=False)
    """Redis needs one for its health check."""


def native_parts(settings: Settings) -> list[Part]:
    """Return the parts, in the order in which they are shown. They end in the reverse order: brokers after workers."""
    python, broker, crash = sys.executable, find_broker(settings), crash_socket(settings)
    oap = [python, "-m", "oap_embedded", "run", "--data", str(settings.run_dir / "oap")]
    oap += ["--overlay", str(ROOT / "oap" / "config"), "--host", HOST, "--heap", settings.oap_heap]
    oap += ["--grpc-port", str(settings.oap_grpc_port), "--http-port", str(settings.oap_http_port)]
    secret = alarm_secret(settings.run_dir)
    if is_ready(settings) and dashboards_of(settings).is_dir():
        oap += ["--dashboards", str(dashboards_of(settings))]
    locust = [python, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py"), "--host", settings.service_url]
    locust += ["--class-picker", "--oap-url", settings.oap_url]
    locust += ["--web-host", HOST, "--web-port", str(settings.locust_port)]
    if settings.locust_workers:
        port = str(settings.locust_master_port)
        locust += ["--processes", str(settings.locust_workers), "--master-bind-host", HOST]
        locust += ["--master-bind-port", port, "--master-port", port]
    return [
        Part(
            "oap",
            tuple(oap),
            f"{settings.oap_url}/healthcheck",
            _ports(settings, "OAP_GRPC_PORT", "OAP_HTTP_PORT"),
            {
                "OAP_EMBEDDED_CACHE": str(cache_directory().absolute()),
                # OAP 10.1 sends no headers.
                **({"OAP_EMBEDDED_WEBHOOK": f"{settings.service_url}/alarms?secret={secret}"} if secret else {}),
            },
            memory_megabytes=settings.heap_megabytes + 450,
            quiet_seconds=120,
            stop_seconds=20,
        ),
        *_broker_parts(settings, broker),
        Part(
            "service",
            (python, "-m", "demo_service"),
            f"{settings.service_url}/health/ready",
            _ports(settings, "SERVICE_PORT"),
            {
                **_service_environment(settings, broker, settings.service_name),
                "SERVICE_PORT": str(settings.service_port),
                **_allowed_hosts("SERVICE", settings),
                **({"SERVICE_ALARM_SECRET": secret} if secret else {}),
            },
            memory_megabytes=250,
            stop_seconds=65,  # tasks and then requests may take 25 s each to end, and their segments are delivered
        ),
        *(_queue_parts(settings, broker) if broker.url else ()),
        Part(
            "console",
            (python, "-m", "tracing_console"),
            f"{settings.console_url}/health",
            _ports(settings, "CONSOLE_PORT"),
            {
                "CONSOLE_HOST": HOST,
                "CONSOLE_PORT": str(settings.console_port),
                **_allowed_hosts("CONSOLE", settings),
                "CONSOLE_OAP_URL": settings.oap_url,
                "CONSOLE_SERVICE_URL": settings.service_url,
                "CONSOLE_SERVICE_NAME": settings.service_name,
                **({"CONSOLE_CRASH_SOCKET": str(crash)} if crash else {}),
                **({"CONSOLE_UI_URL": settings.ui_url} if is_ready(settings) else {}),
                "CONSOLE_RUN_DIR": str(settings.run_dir),
            },
        ),
        *([_crash(settings, crash)] if crash else []),
        *([_ui(settings)] if is_ready(settings) else []),
        Part(
            "loadtest",
            tuple(locust),
            settings.locust_url,
            _ports(settings, "LOCUST_PORT", *(("LOCUST_MASTER_PORT",) if settings.locust_workers else ())),
            _allowed_hosts("LOAD", settings),
            on_demand=True,
        ),
    ]


def crash_socket(settings: Settings) -> Path | None:
    """Return where orders of the console's page `/crash` go; `None` where the run folder's path is too long for it."""
    path = settings.run_dir.absolute() / "crash.sock"
    return path if len(bytes(path)) <= SOCKET_PATH_LIMIT_BYTES else None


def _crash(settings: Settings, socket: Path) -> Part:
    words = ("-m", "stack.crash.server", str(socket), str(settings.run_dir.absolute() / "compare" / "page"))
    return Part(
        "crash",
        (sys.executable, *words),
        f"unix://{socket}",
        {},
        {"RUN_DIR": str(settings.run_dir)},  # the run means this stack
        memory_megabytes=25,
        stop_seconds=35,
    )


def _ui(settings: Settings) -> Part:
    words = ["-m", "stack.runtime.native.ui_server", str(page_of(settings)), settings.oap_url, str(settings.ui_port)]
    hosts = [settings.allowed_hosts] if settings.allowed_hosts else []
    return Part(
        "ui", (sys.executable, *words, *hosts), f"{settings.ui_url}/internal/l7check", {"UI_PORT": settings.ui_port}
    )


def _allowed_hosts(prefix: str, settings: Settings) -> dict[str, str]:
    """Return the host names that are allowed for all parts; without any, a part's own variable counts."""
    return {f"{prefix}_ALLOWED_HOSTS": settings.allowed_hosts} if settings.allowed_hosts else {}


def _ports(settings: Settings, *names: str) -> dict[str, int]:
    return {name: settings.ports[name] for name in names}


def _service_environment(settings: Settings, broker: Broker, name: str) -> dict[str, str]:
    """Return the variables that the service shares with its worker and its consumer; `name` is theirs in SkyWalking."""
    return {
        "SERVICE_HOST": HOST,
        "SERVICE_DATA_DIR": str(settings.run_dir / "service"),
        "BROKER_URL": broker.url,
        "MALLOC_ARENA_MAX": "2",  # 20 MB less for a heap in pieces, under a storm of failing tasks
        "SERVICE_FAULTS_ENABLED": "true",  # to be broken on purpose is what a demo is for
        "SERVICE_TRACE_URL": f"{settings.console_url}/traces/{{trace_id}}",
        "SW_AGENT_NAME": name,
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": f"{HOST}:{settings.oap_grpc_port}",
        "SW_AGENT_LOG_REPORTER_LEVEL": "INFO",
        "SKYWALKING_BACKGROUND_LOG_ENDPOINT": "tag",  # as oap/config/lal/default.yaml reads it
        "SW_AGENT_LOG_REPORTER_LAYOUT": "%(message)s task_id=%(task_id)s",
    }


def _broker_parts(settings: Settings, broker: Broker) -> list[Part]:
    """Return the embedded broker, where the stack brings one."""
    if broker.server is None:
        return []
    folder = settings.run_dir / "broker"
    return [
        Part(
            "broker",
            # The folder is named here, as the file's format can't hold every path. The file is read from standard
            # input (`-`, which must come last), as Redis 7 takes its path for a pattern.
            (str(broker.server), "--dir", str(folder), "-"),
            f"redis://{HOST}:{settings.redis_port}/0",
            _ports(settings, "REDIS_PORT"),
            memory_megabytes=MEMORY_LIMIT_MEGABYTES,
            stdin=folder / CONFIGURATION,
            health_password=broker.password,
        )
    ]


def _queue_parts(settings: Settings, broker: Broker) -> list[Part]:
    """Return the processes that take work from the broker."""
    ports = {
        ("worker" if number == 0 else f"worker-{number + 1}"): ("worker", "WORKER_PORT", port)
        for number, port in enumerate(settings.worker_ports)
    }
    ports["consumer"] = ("consumer", "CONSUMER_PORT", settings.consumer_port)
    return [
        Part(
            name,
            (sys.executable, "-m", "demo_service", command),
            f"http://{HOST}:{port}/health/ready",
            {variable: port},
            {
                **_service_environment(settings, broker, settings.name_of(command)),
                "SERVICE_HEALTH_PORT": str(port),
            },
            memory_megabytes=300 if command == "worker" else 150,
            stop_seconds=35,  # what runs may take 25 s to end; the rest goes back to the broker
        )
        for name, (command, variable, port) in ports.items()
    ]
