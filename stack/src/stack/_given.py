"""What was given: on `make`'s command line, in `.env`, in the environment; and names that are none of ours."""

from __future__ import annotations

import codecs
import difflib
import os
import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from stack import _network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from stack._settings import Settings

ROOT: Final = Path(__file__).resolve().parents[3]
EXAMPLE: Final = ROOT / ".env.example"
"""Where every variable is explained, those of Compose alone too."""
MAKE: Final = frozenset({
    *("ARGS", "DURATION", "FOLLOW", "LINES", "PART", "PROCESSES", "QUICK", "RATE", "SCENARIO", "TAGS", "TASK_SECONDS"),
    *("TRACE_CLIENT", "USERS"),
})  # fmt: skip
"""What only the Makefile reads."""
DOWNLOADS: Final = frozenset({"MAVEN_MIRROR_URL", "OAP_EMBEDDED_CACHE", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"})
PREFIXES: Final = ("SERVICE_", "CONSOLE_", "OAP_", "LOCUST_", "BANYANDB_", "HORIZON_")
"""A name that begins so is ours, or a mistake."""
_BOMS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LIKE: Final = 0.8
"""How like a known name another one is taken for a slip of the pen."""


class UsageError(Exception):
    """One sentence about what was asked for and can't be done as asked."""


def read(path: Path) -> dict[str, str]:
    """Read a `.env` file; nothing when there is none.

    Raises:
        UsageError: it can't be read as a whole.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): mend that, or move it away") from error
    for bom, name in _BOMS.items():
        if raw.startswith(bom):
            raise UsageError(f"{path} is in {name}: save it as UTF-8, which `docker compose` needs too")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}, is not in UTF-8: save the file as UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{path} has zero bytes in it, as UTF-16 without its mark has: save it as UTF-8")
    for binding in parse_stream(StringIO(text)):
        text_of = binding.original.string
        blank = text_of[: len(text_of) - len(text_of.lstrip())]
        line = binding.original.line + len(re.findall(r"\r\n|\r|\n", blank))
        if binding.error:
            raise UsageError(f"{path}, line {line}, can't be read: is a quote open, or a name missing before its `=`?")
        if binding.key is not None and binding.value is None:
            raise UsageError(
                f"{path}, line {line}: {binding.key} has no value; write {binding.key}=…, or a # before it"
            )
    return {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}


def command_line() -> list[str]:
    """Return the names of the variables on `make`'s command line."""
    # After ` -- `, each as NAME=value, with a backslash before each space of the value.
    _, _, variables = f" {os.environ.get('MAKEFLAGS', '')}".partition(" -- ")
    return [word.partition("=")[0].rstrip(":+?") for word in re.findall(r"(?:\\.|\S)+", variables) if "=" in word]


def pass_on(given: dict[str, str], settings: Collection[str]) -> None:
    """Put into the environment what others than the stack's settings read: the parts, and the downloads."""
    network = {*_network.CERTIFICATES, *_network.PROXIES, *_network.EXCEPTIONS}
    for name, value in given.items():
        ours = name.startswith(("SERVICE_", "CONSOLE_", "SW_")) and name not in settings
        if (ours or name in DOWNLOADS or name in network or name.lower() in network) and not os.environ.get(name):
            os.environ[name] = value


def check(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Refuse names that mean nothing.

    Raises:
        UsageError: one does, or is likely to be a slip of the pen.
    """
    for name, meant in _unknown(names, known):
        if meant or name.startswith(PREFIXES):
            raise UsageError(f"{where}: there is no variable {name}{f', did you mean {meant}?' if meant else ''}")


def slips(known: Collection[str]) -> list[str]:
    """Return a sentence for each variable of the environment that looks like a slip of the pen.

    Others may well have variables that begin like ours: so it is said, and not refused.
    """
    ours = (name for name in os.environ if name.startswith(PREFIXES))
    return [
        f"{name} is set and means nothing here: did you mean {meant}?" for name, meant in _unknown(ours, known) if meant
    ]


def known_names(settings: type[Settings]) -> set[str]:
    """Return every variable that means something to the stack or to one of its parts."""
    # Imported here: `make status` should not wait for what only a check of names needs.
    from demo_service._settings import Settings as Service  # noqa: PLC0415
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


def _unknown(names: Iterable[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if name.upper() not in known and name.upper() != "NO_PROXY":
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_LIKE)
            yield name, close[0] if close else ""
