"""The names of variables: those that mean something here, and those that look like typing errors."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, Final

from stack.settings import network
from stack.settings.basics import ROOT, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from stack.settings.model import Settings

EXAMPLE: Final = ROOT / ".env.example"
"""Where every variable is explained, those of Compose alone too."""
MAKE: Final = frozenset({
    *("ARGS", "DURATION", "FOLLOW", "LINES", "PART", "PROCESSES", "QUICK", "RATE", "SCENARIO", "TAGS", "TASK_SECONDS"),
    *("JSON", "OAP_URL", "PATHS", "SERVICE_URL", "TRACE_CLIENT", "USERS"),
})  # fmt: skip
"""Variables that only the Makefile reads."""
DOWNLOADS: Final = frozenset({"MAVEN_MIRROR_URL", "OAP_EMBEDDED_CACHE", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"})
PREFIXES: Final = ("SERVICE_", "CONSOLE_", "OAP_", "LOCUST_", "BANYANDB_", "HORIZON_", "BROKER_")
"""A name with one of these prefixes is ours, or an error."""
SIMILARITY: Final = 0.8
"""How similar (0 to 1) an unknown name must be to a known one to count as a typing error."""


def command_line_names() -> list[str]:
    """Return the names of the variables on `make`'s command line."""
    # After ` -- `, each as NAME=value, with a backslash before each space of the value.
    _, _, variables = f" {os.environ.get('MAKEFLAGS', '')}".partition(" -- ")
    return [word.partition("=")[0].rstrip(":+?") for word in re.findall(r"(?:\\.|\S)+", variables) if "=" in word]


def export_to_parts(given: dict[str, str], settings: Collection[str]) -> None:
    """Put the variables that the parts and the downloads read into the environment, below what is set there.

    Args:
        given: what `.env` says.
        settings: the variables of the stack itself, which each part gets from the stack.
    """
    of_network = {*network.CERTIFICATES, *network.PROXIES, *network.EXCEPTIONS}
    for name, value in given.items():
        of_parts = name.startswith(("SERVICE_", "CONSOLE_", "SW_")) and name not in settings
        wanted = of_parts or name in DOWNLOADS or name in of_network or name.lower() in of_network
        if wanted and not os.environ.get(name):
            os.environ[name] = value


def check_names(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Refuse unknown names.

    Raises:
        UsageError: a name is unknown, and begins as ours do or looks like a typing error.
    """
    for name, meant in _unknown_names(names, known):
        if meant or name.startswith(PREFIXES):
            raise UsageError(f"{where}: there is no variable {name}{f', did you mean {meant}?' if meant else ''}")


def typing_errors(known: Collection[str]) -> list[str]:
    """Return a sentence for each variable of the environment that looks like a typing error.

    Other programs may have variables that begin as ours do, so these are only reported, not refused.
    """
    ours = (name for name in os.environ if name.startswith(PREFIXES))
    return [
        f"{name} is set, but there is no such variable: did you mean {meant}?"
        for name, meant in _unknown_names(ours, known)
        if meant
    ]


def known_names(settings: type[Settings]) -> set[str]:
    """Return every variable that means something to the stack or to one of its parts."""
    # Imported here: `make status` should not wait for what only a check of names needs.
    from demo_service.settings import Settings as Service  # noqa: PLC0415
    from tracing_console import Settings as Console  # noqa: PLC0415

    names = {name.upper() for name in settings.model_fields}
    names |= {f"SERVICE_{name.upper()}" for name in Service.model_fields}
    names |= {f"CONSOLE_{name.upper()}" for name in Console.model_fields}
    return (
        names
        | MAKE
        | DOWNLOADS
        | set(re.findall(r"^#? ?([A-Z_]+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))
    )


def _unknown_names(names: Iterable[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if name.upper() not in known and name.upper() != "NO_PROXY":
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=SIMILARITY)
            yield name, close[0] if close else ""
