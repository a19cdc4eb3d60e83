"""Which runtime a command means: processes under supervisord, or containers under Compose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stack import _compose, _containers, _doctor, _logs, _native, _status
from stack._console import new_console
from stack._engine import EngineError, check
from stack._project import Project
from stack._settings import UsageError
from stack._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack._settings import Settings


@dataclass(frozen=True)
class Runtime:
    """What can be done with a stack; every function returns an exit code."""

    up: Callable[[Settings], int]
    down: Callable[[Settings], int]
    clean: Callable[[Settings], int]
    status: Callable[[Settings], int]
    restart: Callable[[Settings, str], int]
    start_part: Callable[[Settings, str], int]
    logs: Callable[..., int]
    doctor: Callable[[Settings], int]


NATIVE = Runtime(
    _native.up,
    _native.down,
    _native.clean,
    _status.status,
    _native.restart,
    _native.start_part,
    _logs.logs,
    _doctor.doctor,
)
COMPOSE = Runtime(
    _compose.up,
    _compose.down,
    _compose.clean,
    _containers.status,
    _compose.restart,
    _compose.start_part,
    _compose.logs,
    _compose.doctor,
)


def running(settings: Settings) -> Runtime:
    """Return the runtime of the stack that runs, or ran last."""
    return COMPOSE if settings.runtime == "compose" else NATIVE


def to_start(settings: Settings, recorded: str | None) -> Runtime:
    """Return the runtime for `up`, and note it in the settings: what runs already goes on as it is.

    Args:
        settings: what is asked for.
        recorded: the runtime of the stack that runs, or ran last; `None` when there was none.

    Raises:
        UsageError: the stack runs under the other runtime, or can't have what is asked for without Docker.
        EngineError: Compose is asked for and can't be had.
    """
    current = _current(settings, recorded)
    if settings.runtime == "auto":
        settings.runtime = current or _best()  # type: ignore[assignment]  # one of the two words
    elif current and current != settings.runtime:
        message = f"the stack runs with RUNTIME={current}: `make down` ends it, then try again"
        raise UsageError(message)
    if settings.runtime == "compose":
        check()
    else:
        _refuse_for_native(settings)
    return running(settings)


def _refuse_for_native(settings: Settings) -> None:
    for name in ("images", "ui", "storage"):
        if name in settings.model_fields_set:
            given = f"{name.upper()}={getattr(settings, name)}"
            reason = "which without Docker has OAP's H2 as its storage, and no UI but the console"
            raise UsageError(f"{given} is nothing for this stack, {reason}: leave it out, or take RUNTIME=compose")


def _current(settings: Settings, recorded: str | None) -> str | None:
    """Say under which runtime the stack is up, if it is."""
    if Supervisor(settings.run_dir).process is not None:
        return "native"
    if recorded != "compose":
        return None
    try:
        return "compose" if _containers.containers(Project(settings)) else None
    except EngineError:
        return None


def _best() -> str:
    try:
        check()
    except EngineError as error:
        new_console().print(f"running without Docker, as {error.reason}")
        return "native"
    return "compose"
