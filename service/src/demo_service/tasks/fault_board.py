"""The fault board: faults for a share of all requests, for a time, the same ones for the same seed.

A rule is a file in a folder, so all processes of the service have it, and a restart in the middle does not end it. So
is the count of requests: each takes the next number, whichever process serves it, and the number and the seed decide.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from demo_service.tasks.faults import BOARD, parse_fault

if TYPE_CHECKING:
    from pathlib import Path

    from demo_service.tasks.faults import Fault

logger = logging.getLogger(__name__)

Schedule = Literal["steady", "random"]
MOST_SECONDS: Final = 3600
"""How long a rule may hold."""
SPAN_SECONDS: Final = (2.0, 15.0)
"""How long a span of the random schedule is, at least and at most."""
RULE: Final = "rule.json"
UNREADABLE: Final = "The rule of the fault board can't be read, nothing is struck: %s"
UNCOUNTED: Final = "The fault board can't count requests, none is struck: %s"


@dataclass(frozen=True)
class Rule:
    """What strikes, how often, and until when; times in seconds as of `time.time()`."""

    faults: tuple[str, ...]
    share: Annotated[float, Field(ge=0, le=1)]
    """Of the requests that start work, from 0 to 1."""
    seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)]
    seed: int
    schedule: Schedule
    """`steady`: each of the faults at any time. `random`: one of them for a span, then none, and so on."""
    set_at: float

    @property
    def ends_at(self) -> float:
        """When it expires."""
        return self.set_at + self.seconds

    @cached_property
    def spans(self) -> list[tuple[float, str | None]]:
        """The random schedule: after how many seconds a span ends, and what strikes in it."""
        choice = random.Random(self.seed)  # noqa: S311  # no secret
        spans: list[tuple[float, str | None]] = []
        end = 0.0
        while end < self.seconds:
            end += choice.uniform(*SPAN_SECONDS)
            quiet = bool(spans) and spans[-1][1] is not None
            spans.append((end, None if quiet else choice.choice(self.faults)))
        return spans

    def at(self, moment: float) -> tuple[str, ...]:
        """Return the faults that may strike at a moment."""
        passed = moment - self.set_at
        if passed >= self.seconds:
            return ()
        if self.schedule == "steady":
            return self.faults
        fault = next((fault for end, fault in self.spans if passed < end), None)
        return () if fault is None else (fault,)

    def draw(self, number: int, moment: float) -> str | None:
        """Return what strikes the request of this number, if anything does."""
        digest = blake2b(f"{self.seed} {number}".encode(), digest_size=16).digest()
        faults = self.at(moment)
        if not faults or int.from_bytes(digest[:8]) >= self.share * 2**64:
            return None
        return faults[int.from_bytes(digest[8:]) % len(faults)]


_RULE: Final = TypeAdapter(Rule)


class FaultBoard:
    """The board of one service, the same for all its processes.

    Args:
        folder: where the rule is.
        enabled: whether it may strike at all.
    """

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self.enabled = enabled
        self._folder = folder
        self._known: tuple[int, int] | None = None
        self._rule: Rule | None = None
        self._files: tuple[int, int] | None = None
        self._told: set[str] = set()

    def put(self, rule: Rule) -> None:
        """Have a rule in the place of the one before, and count from nothing.

        Raises:
            OSError: the folder can't be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f"{RULE}.{os.getpid()}"
        new.write_text(json.dumps(asdict(rule)))
        self._forget_counts()
        new.replace(self._folder / RULE)

    def clear(self) -> None:
        """Have no rule.

        Raises:
            OSError: the folder can't be written.
        """
        (self._folder / RULE).unlink(missing_ok=True)
        self._forget_counts()

    def rule(self) -> Rule | None:
        """Return the rule, as long as it holds."""
        self._look()
        rule = self._rule
        return rule if rule is not None and time.time() < rule.ends_at else None

    def counts(self) -> tuple[int, int]:
        """Return how many requests the rule has seen, and how many it has struck."""
        rule = self.rule()
        if rule is None:
            return 0, 0
        return _size(self._count_of(rule, "seen")), _size(self._count_of(rule, "struck"))

    def draw(self) -> Fault | None:
        """Return the fault for one more request, if one strikes it."""
        if not self.enabled or (rule := self.rule()) is None:
            return None
        try:
            seen, struck = self._open(rule)
            fault = rule.draw(_count(seen), time.time())
            self._told.discard(UNCOUNTED)
            if fault is None:
                return None
            _count(struck)
        except OSError as error:
            self._tell(UNCOUNTED, error)
            return None
        return parse_fault(fault, BOARD)

    def close(self) -> None:
        """Give the files back."""
        for file in self._files or ():
            os.close(file)
        self._files = None

    def _look(self) -> None:
        """Read the rule again if its file is another one."""
        path = self._folder / RULE
        try:
            found = path.stat()
            known = (found.st_ino, found.st_mtime_ns)
            if known != self._known:
                self.close()
                self._known, self._rule = known, _read(path.read_text())
            self._told.discard(UNREADABLE)
        except (FileNotFoundError, NotADirectoryError):
            self.close()
            self._known = self._rule = None
        except (OSError, ValueError) as error:
            self._rule = None
            self._tell(UNREADABLE, error)

    def _open(self, rule: Rule) -> tuple[int, int]:
        if self._files is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            seen = os.open(self._count_of(rule, "seen"), flags, 0o600)
            try:
                self._files = seen, os.open(self._count_of(rule, "struck"), flags, 0o600)
            except OSError:
                os.close(seen)
                raise
        return self._files

    def _count_of(self, rule: Rule, what: str) -> Path:
        """Return a file that has a byte for each request; of another rule it is another file."""
        return self._folder / f"{what}-{rule.set_at:.6f}"

    def _forget_counts(self) -> None:
        for path in [*self._folder.glob("seen-*"), *self._folder.glob("struck-*")]:
            with suppress(FileNotFoundError):
                path.unlink()

    def _tell(self, message: str, error: Exception) -> None:
        """Say it once, until it works again."""
        if message not in self._told:
            logger.warning(message, error)
        self._told.add(message)


def _read(text: str) -> Rule:
    """Read a rule as strictly as if it were asked for: somebody may have written the file by hand."""
    rule = _RULE.validate_json(text)
    for fault in rule.faults:
        parse_fault(fault)
    return rule


def _count(file: int) -> int:
    """Add one, and return how many there are: an append and the place after it are one step to the kernel."""
    os.write(file, b".")
    return os.lseek(file, 0, os.SEEK_CUR)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
