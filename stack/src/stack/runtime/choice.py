"""Which runtime a command means: processes under supervisord, or containers under Compose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from stack.runtime.compose import ComposeRuntime
from stack.runtime.engine import EngineError, check_engine
from stack.runtime.native import NativeRuntime
from stack.settings import UsageError
from stack.terminal import new_console

if TYPE_CHECKING:
    from stack.runtime.protocol import Runtime
    from stack.settings import Settings


def current_runtime(settings: Settings) -> Runtime:
    """Return the runtime of the running stack, or of the last one."""
    return ComposeRuntime(settings) if settings.runtime == "compose" else NativeRuntime(settings)


def choose_runtime(settings: Settings, recorded: str | None) -> Runtime:
    """Return the runtime for `up`, and note it in the settings. A running stack keeps its runtime.

    Args:
        settings: what the user asks for.
        recorded: the runtime of the running or the last stack; `None` when there was none.

    Raises:
        UsageError: the stack runs with the other runtime, or a setting needs Docker and the runtime is native.
        EngineError: Compose was asked for and Docker can't be used.
    """
    running = _running(settings, recorded)
    if settings.runtime == "auto":
        settings.runtime = running or _best()  # type: ignore[assignment]  # one of the two words
    elif running and running != settings.runtime:
        message = f"the stack runs with RUNTIME={running}: end it with `make down`, then try again"
        raise UsageError(message)
    if settings.runtime == "compose":
        if settings.images == "local" and not psutil.LINUX:
            message = (
                "IMAGES=local makes a base image of Debian with debootstrap, which is for Linux: leave it out, or "
            )
            raise UsageError(message + "take RUNTIME=native")
        check_engine()
    else:
        _refuse_compose_settings(settings)
    return current_runtime(settings)


def _refuse_compose_settings(settings: Settings) -> None:
    for name in ("images", "ui", "storage"):
        if name in settings.model_fields_set:
            setting = f"{name.upper()}={getattr(settings, name)}"
            reason = "the native stack always has OAP's H2 as its storage, and no UI but the console"
            raise UsageError(f"{setting} needs RUNTIME=compose: {reason}. Leave it out, or add RUNTIME=compose")


def _running(settings: Settings, recorded: str | None) -> str | None:
    """Return the runtime of the stack that is up; `None` when none is."""
    if NativeRuntime(settings).is_up:
        return "native"
    if recorded != "compose":
        return None
    try:
        return "compose" if ComposeRuntime(settings).is_up else None
    except EngineError:
        return None


def _best() -> str:
    try:
        check_engine()
    except EngineError as error:
        new_console().print(f"running without Docker: {error.reason}")
        return "native"
    return "compose"
