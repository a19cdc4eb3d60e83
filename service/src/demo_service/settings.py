"""The service's settings, all from `SERVICE_*` environment variables."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from demo_service.accepted.journal import Level

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
BROKER_SCHEMES: Final = ("redis", "rediss", "amqp", "amqps")


def _known_broker(url: SecretStr | None) -> SecretStr | None:
    if url is not None and url.get_secret_value().partition("://")[0] not in BROKER_SCHEMES:
        message = f"BROKER_URL must begin with one of {', '.join(f'{scheme}://' for scheme in BROKER_SCHEMES)}"
        raise ValueError(message)
    return url


def _apprise_is_installed(urls: list[SecretStr]) -> list[SecretStr]:
    if urls and find_spec("apprise") is None:
        message = "SERVICE_NOTIFY_URLS needs the extra `notify`: pip install apprise"
        raise ValueError(message)
    return urls


def _asyncpg_is_installed(url: SecretStr | None) -> SecretStr | None:
    # SQLAlchemy imports what the URL names: with another database, its driver is yours to install.
    if url is not None and "+asyncpg:" in url.get_secret_value() and find_spec("asyncpg") is None:
        message = "SERVICE_DATABASE_URL needs the extra `postgresql`: pip install asyncpg"
        raise ValueError(message)
    return url


def _none_if_empty(value: object) -> object:
    return value or None


class Settings(BaseSettings):
    """What can be set from outside; tracing has its own `SW_AGENT_*` variables."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", populate_by_name=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    allowed_hosts: str = ""
    """Names by which it may be called beside the loopback ones, separated by commas: without it, a page of somebody
    else that points its own name at this machine (DNS rebinding) could start tasks and read what became of them."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share the requests; each has tasks of its own, and is an instance of its own in SkyWalking."""
    task_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0
    """How long a background task sleeps: it stands for the slow work (mail, report, upload) that nobody waits for."""
    attempt_seconds: Seconds = 90.0
    """After how long an attempt counts as failed: a call that never returns must not hold its slot for ever."""
    max_running: Count = 10_000
    max_queued: Annotated[int, Field(ge=0)] = 1_000
    """How many more are accepted while `max_running` run; past that a request gets 503."""
    drain_seconds: Count = 25
    """How long running tasks may go on after SIGTERM; what is unfinished then becomes a dead letter."""
    max_body_bytes: Count = 64 * 1024
    max_head_bytes: Count = 32 * 1024
    """The largest request line and headers together."""
    head_seconds: Seconds = 10.0
    """How long a new connection, and then each request's headers, may take to arrive."""
    body_seconds: Seconds = 30.0
    """How long a request's body may take to arrive."""
    keep_alive_seconds: Count = 5
    """How long an idle connection is kept for the next request."""
    spare_descriptors: Count = 32
    """Descriptors that connections must leave to files, the database and OAP: past that a request gets 503."""
    kept_letters: Count = 100_000
    """How many dead letters are kept; the oldest are forgotten first."""
    letter_days: Seconds = 30.0
    """After how many days a dead letter is forgotten."""
    kept_tasks: Count = 10_000
    """How many finished tasks `GET /tasks` remembers."""
    data_dir: Path = Path(".run/service")
    """Where SQLite keeps the dead letters."""
    database_url: Annotated[SecretStr | None, AfterValidator(_asyncpg_is_installed)] = None
    """Another place for them, such as `postgresql+asyncpg://user@host/database`: the extra `postgresql`."""
    journal: Level = Level.OFF
    """What an answer that says `accepted` promises of a process that is killed: see `accepted/journal.py`."""
    max_argument_bytes: Count = 16 * 1024
    """The largest arguments (as JSON) that a dead letter keeps."""
    redact: list[str] = ["password", "passwd", "secret", "token", "api_key", "authorization", "credential"]
    """A field whose name contains one of these is kept neither in dead letters, nor in logs and traces of errors."""
    notify_urls: Annotated[list[SecretStr], AfterValidator(_apprise_is_installed)] = []
    """Who is notified of dead letters and alarms: Apprise URLs (https://appriseit.com/services/), such as `mailto://…`,
    `json://…`: the extra `notify`."""
    notify_seconds: Seconds = 60.0
    """The shortest time between two notifications of dead letters; the second one has all that died meanwhile."""
    alarm_secret: SecretStr | None = None
    """What OAP's webhook says to be let in at `POST /alarms`: in `Authorization: Bearer …`, or in the query."""
    alarm_quiet_seconds: Seconds = 200.0
    """An alarm that is not repeated for so long is over, where OAP does not say so (before 10.4)."""
    idempotency_seconds: Seconds = 24 * 3600
    """How long an answer is remembered for a repeated key."""
    idempotency_keys: Count = 100_000
    """How many of them; the least recently used is forgotten first."""
    faults_enabled: bool = False
    """Whether the header `X-Fault` may break things on purpose; one of its faults ends the process."""
    profiling_enabled: bool = False
    """Whether `POST /profiles` may look at the stacks of running tasks: 2 % of a core while it does."""
    broker_url: Annotated[
        SecretStr | None,
        BeforeValidator(_none_if_empty),
        AfterValidator(_known_broker),
        Field(validation_alias=AliasChoices("BROKER_URL", "SERVICE_BROKER_URL")),
    ] = None
    """The broker of Celery and the message queue, `redis://…` or `amqp://…`; its variable is `BROKER_URL`."""
    publish_seconds: Seconds = 5.0
    """How long a broker may take to confirm a message; then the request gets 503."""
    visibility_seconds: Seconds = 90.0
    """Redis: after how long without an acknowledgement a message is given to somebody else. Longer than the longest
    work (60 s), or work is done twice."""
    worker_processes: Count = 4
    """Processes of a Celery worker's pool."""
    consumer_tasks: Count = 1_000
    """How many messages a consumer works on at once."""
    pool_processes: Count = 2
    """Processes of the service's own pool."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where a worker or a consumer answers `GET /health/ready`; 0 for nowhere."""
    ledger_dir: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    """Where everything accepted and done is written down, to be counted after a crash; see `demo_service.ledger`."""
    trace_url: str = "http://127.0.0.1:8088/traces/{trace_id}"
    """Where a person sees a trace."""
