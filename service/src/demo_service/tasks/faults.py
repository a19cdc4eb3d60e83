"""Faults on purpose, asked for by the header `X-Fault`, so that every failure path can be seen."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, field
from typing import Final, Literal

EXIT_CODE: Final = 70
FAULTS: Final = "error, error;times=2, delay=500ms (less than 60 s), hang, exit"
SYNTAX: Final = r"^(error(;times=[1-9][0-9]?)?|delay=([0-9]{1,4}ms|[1-5]?[0-9](\.[0-9]{1,3})?s)|hang|exit)$"
"""As a regular expression that OpenAPI understands too."""


HEADER: Final = "X-Fault"
BOARD: Final = "fault board"
"""Where a fault came from: the request itself, or the rule for a share of all requests."""


class InjectedError(ConnectionError):
    """What a task meets whose database, mail server or neighbour is away for a while: worth another attempt."""


@dataclass(frozen=True)
class Fault:
    """One fault and when it strikes: at the first `times` attempts of the task, or at each."""

    kind: Literal["error", "delay", "hang", "exit"]
    times: int | None = None
    seconds: float = 0.0
    text: str = field(default="", compare=False)
    """As it was asked for."""
    origin: str = field(default=HEADER, compare=False)

    async def strike(self, attempt: int) -> None:
        """Do to this attempt (the first is 1) what was asked for, before its work begins.

        Raises:
            InjectedError: the fault is an error, and this attempt is among those that fail.
        """
        if self.kind == "error":
            if self.times is None or attempt <= self.times:
                message = f"{self.origin}: attempt {attempt} fails on purpose"
                raise InjectedError(message)
        elif self.kind == "delay":  # a slow neighbour
            await asyncio.sleep(self.seconds)
        elif self.kind == "hang":  # a call without a timeout
            await asyncio.Event().wait()
        else:  # out of memory, a fault in native code: nothing is cleaned up
            os._exit(EXIT_CODE)


def parse_fault(text: str, origin: str = HEADER) -> Fault:
    """Read a fault as the header has it.

    Raises:
        ValueError: there is no such fault; the message lists those that there are.
    """
    if not re.fullmatch(SYNTAX, text):
        message = f"there is no such fault; it is one of: {FAULTS}"
        raise ValueError(message)
    kind, *values = re.split("[;=]", text)
    if kind == "delay":
        number, milliseconds = values[0].removesuffix("s").removesuffix("m"), values[0].endswith("ms")
        seconds = float(number) / (1000 if milliseconds else 1)
        return Fault("delay", seconds=seconds, text=text, origin=origin)
    if kind == "error":
        return Fault("error", int(values[1]) if values else None, text=text, origin=origin)
    return Fault("hang" if kind == "hang" else "exit", text=text, origin=origin)
