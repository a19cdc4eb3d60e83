"""Loading the settings: the environment, `.env`, and what the running stack was started with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stack.settings import names
from stack.settings.basics import ROOT, UsageError
from stack.settings.env_file import read_env_file
from stack.settings.model import SECRETS, Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def load_settings(*, running: bool = False) -> Settings:
    """Read the settings.

    Args:
        running: for what is not set, prefer the values of the running stack to the defaults.

    Raises:
        UsageError: a variable has an invalid value, or an unknown name.
    """
    file = ROOT / ".env"
    in_file, known = read_env_file(file), names.known_names(Settings)
    names.check_names(in_file, known, str(file))
    names.check_names(names.command_line_names(), known, "make")
    names.export_to_parts(in_file, [name.upper() for name in Settings.model_fields])
    try:
        settings = Settings()
        recorded = _recorded(settings) if running else {}
        return Settings(**recorded) if recorded else settings
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(problem) for problem in error.errors())) from error


def recorded_runtime(settings: Settings) -> str | None:
    """Return the runtime of the stack that runs, or ran last under Compose."""
    return _read(settings).get("runtime")


def _recorded(settings: Settings) -> dict[str, Any]:
    # A running stack has one runtime, whatever RUNTIME says now.
    return {
        name: value
        for name, value in _read(settings).items()
        if name == "runtime" or name not in settings.model_fields_set
    }


def _read(settings: Settings) -> dict[str, Any]:
    try:
        recorded: dict[str, Any] = json.loads(settings.record.read_text())
    except (OSError, ValueError):
        return {}
    return recorded


def _sentence(problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    name, value = ".".join(map(str, problem["loc"])).upper(), problem["input"]
    if name.lower() in SECRETS:
        value = "…"
    if name.endswith("_PORT"):
        reason = "is not a port: it must be a number from 1 to 65535"
    elif "expected" in (context := problem.get("ctx", {})):
        reason = f"is not valid: it must be {context['expected']}"
    elif name == "OAP_HEAP":
        reason = "is not a heap size such as 512m or 1g"
    else:
        reason = f"is not valid: {problem['msg'].removeprefix('Value error, ')}"
    return f"{name}={value!r} {reason}"
