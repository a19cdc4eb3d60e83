"""Faults on purpose, asked for by the header `X-Fault`, so that every failure path can be seen."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import Final, Literal

EXIT_CODE: Final = 70
MAX_DELAY: Final = 60.0  # s
FAULTS: Final = "error, error;times=2, delay=500ms, hang, exit"
_SYNTAX: Final = re.compile(
    r"(?P<error>error)(?:;times=(?P<times>[1-9]\d?))?"
    r"|delay=(?P<delay>\d{1,5}(?:\.\d{1,3})?)(?P<unit>ms|s)"
    r"|(?P<other>hang|exit)",
    re.ASCII,
)


class InjectedError(ConnectionError):
    """What a task meets whose database, mail server or neighbour is away for a while: worth another attempt."""


@dataclass(frozen=True)
class Fault:
    """One fault and when it strikes: at the first `times` attempts of the task, or at each."""

    kind: Literal["error", "delay", "hang", "exit"]
    times: int | None = None
    seconds: float = 0.0

    async def strike(self, attempt: int) -> None:
        """Do to this attempt (the first is 1) what was asked for, before its work begins.

        Raises:
            InjectedError: the fault is an error, and this attempt is among those that fail.
        """
        if self.kind == "error":
            if self.times is None or attempt <= self.times:
                message = f"X-Fault: attempt {attempt} fails on purpose"
                raise InjectedError(message)
        elif self.kind == "delay":  # a slow neighbour
            await asyncio.sleep(self.seconds)
        elif self.kind == "hang":  # a call without a timeout
            await asyncio.Event().wait()
        else:  # out of memory, a fault in native code: nothing is cleaned up
            os._exit(EXIT_CODE)


def parse_fault(text: str) -> Fault:
    """Read the header's value.

    Raises:
        ValueError: there is no such fault; the message lists those that there are.
    """
    found = _SYNTAX.fullmatch(text)
    if found and found["error"]:
        return Fault("error", times=int(found["times"]) if found["times"] else None)
    if found and found["delay"]:
        seconds = float(found["delay"]) / (1000 if found["unit"] == "ms" else 1)
        if seconds <= MAX_DELAY:
            return Fault("delay", seconds=seconds)
    elif found:
        return Fault("hang" if found["other"] == "hang" else "exit")
    message = f"there is no such fault; it is one of: {FAULTS} (a delay of up to {MAX_DELAY:.0f} s)"
    raise ValueError(message)
