"""Reading a `.env` file as people's editors write it."""

from __future__ import annotations

import codecs
import re
from io import StringIO
from typing import TYPE_CHECKING, Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from stack.settings.basics import UsageError

if TYPE_CHECKING:
    from pathlib import Path

ENCODING_BY_BYTE_ORDER_MARK: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_env_file(path: Path) -> dict[str, str]:
    """Read a `.env` file; nothing when there is none.

    Raises:
        UsageError: the file can't be read, or a line of it can't be understood.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): fix that, or move the file away") from error
    for bom, name in ENCODING_BY_BYTE_ORDER_MARK.items():
        if raw.startswith(bom):
            raise UsageError(f"{path} is in {name}: save it as UTF-8, which `docker compose` needs too")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}, is not in UTF-8: save the file as UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{path} has zero bytes in it, as UTF-16 without a byte order mark has: save it as UTF-8")
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
