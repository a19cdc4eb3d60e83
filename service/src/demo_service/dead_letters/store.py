"""Tasks that failed for good, kept in a database until somebody replays or deletes them."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from skywalking_background import untraced
from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, Text, delete, func, insert, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from demo_service.dead_letters.letter import DeadLetter, StoreUnavailableError
from demo_service.dead_letters.letter_file import LetterFile
from demo_service.dead_letters.redaction import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import ColumnElement, RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from demo_service.dead_letters.letter import Wanted
    from demo_service.settings import Settings

logger = logging.getLogger(__name__)

BATCH: Final = 1_000
"""Letters in one transaction, at the most: a storm must not mean a disk write for each, nor a queue that grows."""
MAX_PENDING: Final = 20_000
"""Letters that wait for a slow database, at the most."""
ANSWER_SECONDS: Final = 10.0
"""How long the database may take to answer."""
TIDY_SECONDS: Final = 60.0
"""How long it is from one deletion of what is too old or too much to the next."""
PROBE_SECONDS: Final = 5.0
"""How long it is from one probe of a database that has failed to the next; health checks ask for them."""
PROBE_ANSWER_SECONDS: Final = 2.0
"""How long a probe may take: a health check does not wait for long."""
PROBE_ID: Final = "probe"
PROBE_BYTES: Final = 64 * 1024

T = TypeVar("T")

_METADATA = MetaData()
_LETTERS = Table(
    "dead_letters",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("arguments", Text, nullable=False),  # JSON, ASCII only: PostgreSQL's own type takes no NUL
    Column("complete", Boolean, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("error_stack", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("trace_id", Text),
    Column("replay_of", Text),
    Column("died_at", String(32), nullable=False, index=True),  # ISO 8601 in UTC, which sorts by time as text
)


class DeadLetters:
    """The store. Writing never fails and never makes a task wait; what can't be stored is in the log."""

    def __init__(self, settings: Settings, on_stored: Callable[[str], object] = lambda _id: None) -> None:
        self._on_stored = on_stored
        self._file = None if settings.database_url else LetterFile(settings.data_dir.absolute())
        url = self._file.url if self._file else ""
        if settings.database_url:
            url = settings.database_url.get_secret_value()
        self._engine = create_async_engine(url, pool_pre_ping=True, hide_parameters=True)  # we log them, once
        self._kept = settings.kept_letters
        self._days = settings.letter_days
        self._tidied = -TIDY_SECONDS
        self._ready = False
        self._failure: str | None = None
        self._probed = -PROBE_SECONDS
        self._pending: list[DeadLetter] = []
        self._writer: asyncio.Task[None] | None = None

    def put(self, letter: DeadLetter) -> None:
        """Store a letter soon."""
        if len(self._pending) >= MAX_PENDING:
            _log_unstored(letter, "the database is too slow")
            return
        self._pending.append(letter)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=Context())

    async def trouble(self) -> str | None:
        """Return why letters can't be stored now, in a few words; `None` when they can."""
        if self._file and (reason := self._file.trouble()):
            return reason
        if len(self._pending) >= MAX_PENDING:
            return "the database is too slow"
        known = self._ready and self._failure is None
        if not known and time.monotonic() - self._probed >= PROBE_SECONDS:
            self._probed = time.monotonic()
            try:
                with untraced():
                    async with asyncio.timeout(PROBE_ANSWER_SECONDS):
                        await self._attempt(_probe)
                self._failure = None
            except Exception as error:  # noqa: BLE001  # whatever it is, it is what the answer says
                self._failure = _in_a_line(error)
        return self._failure

    async def read(self, limit: int) -> tuple[list[DeadLetter], int]:
        """Return the latest letters and how many there are.

        Raises:
            StoreUnavailableError: the database does not answer.
        """

        async def run(connection: AsyncConnection) -> tuple[list[DeadLetter], int]:
            newest = select(_LETTERS).order_by(_LETTERS.c.died_at.desc(), _LETTERS.c.id).limit(limit)
            letters = [_letter(row) for row in (await connection.execute(newest)).mappings()]
            total = await connection.scalar(select(func.count()).select_from(_LETTERS))
            return letters, total or 0

        return await self._answer(run)

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a letter; `None` when there is none of that id.

        Raises:
            StoreUnavailableError: the database does not answer.
        """

        async def run(connection: AsyncConnection) -> DeadLetter | None:
            found = (await connection.execute(select(_LETTERS).where(_LETTERS.c.id == letter_id))).mappings().first()
            return None if found is None else _letter(found)

        return await self._answer(run)

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Store letters now; those that are there already stay as they are.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        for first in range(0, len(letters), BATCH):
            batch = letters[first : first + BATCH]

            async def run(connection: AsyncConnection, batch: Sequence[DeadLetter] = batch) -> None:
                known = select(_LETTERS.c.id).where(_LETTERS.c.id.in_([letter.id for letter in batch]))
                there = set((await connection.execute(known)).scalars())
                if new := [vars(letter) for letter in batch if letter.id not in there]:
                    await connection.execute(insert(_LETTERS), new)

            with untraced():
                await self._answer(run)

    async def select(self, wanted: Wanted, limit: int) -> list[DeadLetter]:
        """Return the letters that are wanted, the oldest first.

        Raises:
            StoreUnavailableError: the database does not answer.
        """

        async def run(connection: AsyncConnection) -> list[DeadLetter]:
            oldest = select(_LETTERS).where(*_conditions(wanted)).order_by(_LETTERS.c.died_at).limit(limit)
            return [_letter(row) for row in (await connection.execute(oldest)).mappings()]

        return await self._answer(run)

    async def remove_all(self, wanted: Wanted) -> int:
        """Delete the letters that are wanted; return how many they were.

        Raises:
            StoreUnavailableError: the database does not answer.
        """

        async def run(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(_LETTERS).where(*_conditions(wanted)))).rowcount

        return await self._answer(run)

    async def remove(self, letter_id: str) -> bool:
        """Delete a letter; say whether it was there, which is true for one caller only.

        Raises:
            StoreUnavailableError: the database does not answer.
        """

        async def run(connection: AsyncConnection) -> bool:
            return (await connection.execute(delete(_LETTERS).where(_LETTERS.c.id == letter_id))).rowcount > 0

        return await self._answer(run)

    async def close(self) -> None:
        """Wait until what was put is stored, and leave the database."""
        await self.settled()
        await self._engine.dispose()

    async def settled(self) -> None:
        """Wait until what was put is stored, or could not be."""
        if self._writer is not None:
            await asyncio.shield(self._writer)

    async def _write(self) -> None:
        while batch := self._pending[:BATCH]:

            async def run(connection: AsyncConnection, batch: list[DeadLetter] = batch) -> None:
                await connection.execute(insert(_LETTERS), [vars(letter) for letter in batch])

            try:
                with untraced():
                    await self._attempt(run)
                self._failure = None
                for letter in batch:
                    self._on_stored(letter.id)
            except Exception as error:  # noqa: BLE001  # a full disk, a database that is away: no task is hurt by it
                self._failure = _in_a_line(error)
                for letter in batch:
                    _log_unstored(letter, self._failure)
            del self._pending[: len(batch)]

    async def _answer(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        await self.settled()
        try:
            return await self._attempt(run)
        except Exception as error:
            self._failure = _in_a_line(error)
            logger.exception("The store of dead letters does not answer")
            message = "the store of dead letters does not answer; the log says why"
            raise StoreUnavailableError(message) from error

    async def _attempt(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run something in a transaction; once more with a new file, where the old one is damaged or gone."""
        try:
            result = await self._transact(run)
        except Exception as error:
            if not self._file or not (self._file.is_gone() or self._file.move_aside(error)):
                raise
        else:
            if not self._file or not self._file.is_gone():
                return result
        await self._start_anew()
        return await self._transact(run)

    async def _start_anew(self) -> None:
        await self._engine.dispose()
        self._ready = False

    async def _transact(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        if self._file and self._ready and self._file.is_gone():
            await self._start_anew()
        if self._file and not self._ready:
            self._file.prepare()
        async with asyncio.timeout(ANSWER_SECONDS), self._engine.begin() as connection:
            if not self._ready:  # not at the start: the service must come up while its database is away
                # Not `create_all`, which looks first: another process, or another task of this one, may be faster.
                await connection.execute(CreateTable(_LETTERS, if_not_exists=True))
                for index in _LETTERS.indexes:
                    await connection.execute(CreateIndex(index, if_not_exists=True))
            result = await run(connection)
            await self._tidy(connection)
        if self._file and not self._ready:
            self._file.opened()
        self._ready = True
        return result

    async def _tidy(self, connection: AsyncConnection) -> None:
        """Forget the letters that are too old or too many; the log says how many they were."""
        if time.monotonic() - self._tidied < TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        oldest = (datetime.now(UTC) - timedelta(days=self._days)).isoformat(timespec="milliseconds")
        last = select(_LETTERS.c.died_at).order_by(_LETTERS.c.died_at.desc()).offset(self._kept).limit(1)
        for condition, why in (
            (_LETTERS.c.died_at < oldest, f"older than {self._days:g} days"),
            (_LETTERS.c.died_at <= last.scalar_subquery(), f"beyond the latest {self._kept:,}"),
        ):
            forgotten = (await connection.execute(delete(_LETTERS).where(condition))).rowcount
            if forgotten > 0:
                logger.warning("%d dead letters are forgotten: they were %s", forgotten, why)


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    """Say it in SQL. The probe's row is nobody's letter."""
    columns = _LETTERS.c
    conditions = [columns.id != PROBE_ID]
    if wanted.name is not None:
        conditions.append(columns.name == wanted.name)
    if wanted.error is not None:
        conditions.append(columns.error_type == wanted.error)
    if wanted.reason is not None:
        conditions.append(columns.reason == wanted.reason)
    if wanted.after is not None:
        conditions.append(columns.died_at >= _as_stored(wanted.after))
    if wanted.before is not None:
        conditions.append(columns.died_at < _as_stored(wanted.before))
    return conditions


def _as_stored(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


async def _probe(connection: AsyncConnection) -> None:
    """Write something that is as large as a letter can be, and that nobody will find."""
    letter: dict[str, object] = dict.fromkeys(_LETTERS.columns.keys(), "")
    letter |= {"id": PROBE_ID, "complete": False, "attempts": 0, "error_stack": "x" * PROBE_BYTES}
    await connection.execute(delete(_LETTERS).where(_LETTERS.c.id == PROBE_ID))
    await connection.execute(insert(_LETTERS), [letter])
    await connection.execute(delete(_LETTERS).where(_LETTERS.c.id == PROBE_ID))


def _in_a_line(error: Exception) -> str:
    return describe(error).splitlines()[0]


def _letter(row: RowMapping) -> DeadLetter:
    return DeadLetter(**row)


def _log_unstored(letter: DeadLetter, why: str) -> None:
    logger.error(
        "Dead letter of %s not stored (%s); only this line has it",
        letter.name,
        why,
        extra={"dead_letter": asdict(letter)},
    )
