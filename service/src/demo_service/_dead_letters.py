"""Tasks that failed for good, kept in a database until somebody replays or deletes them."""

from __future__ import annotations

import asyncio
import logging
import traceback
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from fastapi import HTTPException
from skywalking_background import untraced
from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, Text, delete, func, insert, select
from sqlalchemy.ext.asyncio import create_async_engine

from demo_service._redaction import describe, storable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from demo_service._registry import Task
    from demo_service._settings import Settings

logger = logging.getLogger(__name__)

BATCH: Final = 1_000
"""Letters in one transaction, at the most: a storm must not mean a disk write for each, nor a queue that grows."""
MAX_PENDING: Final = 20_000
"""Letters that wait for a slow database, at the most."""
PATIENCE: Final = 10.0
"""s that the database may take to answer."""

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


@dataclass(frozen=True)
class DeadLetter:
    """One task that failed for good; `arguments` is JSON, without secrets."""

    id: str
    name: str
    endpoint: str
    arguments: str
    complete: bool
    """Whether all arguments are there, so that the task can be replayed."""
    error_type: str
    error_message: str
    error_stack: str
    attempts: int
    reason: Literal["failed", "interrupted"]
    trace_id: str | None
    replay_of: str | None
    died_at: str


def letter_of(task: Task, arguments: str, error: BaseException, *, complete: bool, interrupted: bool) -> DeadLetter:
    """Write down how a task ended; `arguments` is JSON."""
    return DeadLetter(
        id=task.id,
        name=task.name,
        endpoint=task.endpoint,
        arguments=arguments,
        complete=complete,
        error_type=type(error).__name__,
        error_message=storable(str(error)),
        error_stack=storable("".join(traceback.format_exception(error))),
        attempts=task.attempts,
        reason="interrupted" if interrupted else "failed",
        trace_id=task.trace_id,
        replay_of=task.replay_of,
        died_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


class DeadLetters:
    """The store. Writing never fails and never makes a task wait; what can't be stored is in the log."""

    def __init__(self, settings: Settings) -> None:
        self._directory = None if settings.database_url else settings.data_dir.absolute()
        url = f"sqlite+aiosqlite:///{self._directory}/dead-letters.db"
        if settings.database_url:
            url = settings.database_url.get_secret_value()
        self._engine = create_async_engine(url, pool_pre_ping=True, hide_parameters=True)  # they are told once, by us
        self._ready = False
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

    async def read(self, limit: int) -> tuple[list[DeadLetter], int]:
        """Return the latest letters and how many there are.

        Raises:
            HTTPException: 503, the database does not answer.
        """
        async with self._answering() as connection:
            newest = select(_LETTERS).order_by(_LETTERS.c.died_at.desc(), _LETTERS.c.id).limit(limit)
            letters = [_letter(row) for row in (await connection.execute(newest)).mappings()]
            total = await connection.scalar(select(func.count()).select_from(_LETTERS))
        return letters, total or 0

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return a letter; `None` when there is none of that id.

        Raises:
            HTTPException: 503, the database does not answer.
        """
        async with self._answering() as connection:
            found = (await connection.execute(select(_LETTERS).where(_LETTERS.c.id == letter_id))).mappings().first()
        return None if found is None else _letter(found)

    async def remove(self, letter_id: str) -> bool:
        """Delete a letter; say whether it was there, which is true for one caller only.

        Raises:
            HTTPException: 503, the database does not answer.
        """
        async with self._answering() as connection:
            return (await connection.execute(delete(_LETTERS).where(_LETTERS.c.id == letter_id))).rowcount > 0

    async def close(self) -> None:
        """Wait until what was put is stored, and leave the database."""
        await self._settled()
        await self._engine.dispose()

    async def _settled(self) -> None:
        if self._writer is not None:
            await asyncio.shield(self._writer)

    async def _write(self) -> None:
        while batch := self._pending[:BATCH]:
            try:
                with untraced():
                    async with self._transaction() as connection:
                        await connection.execute(insert(_LETTERS), [vars(letter) for letter in batch])
            except Exception as error:  # noqa: BLE001  # a full disk, a database that is away: no task is hurt by it
                for letter in batch:
                    _log_unstored(letter, describe(error).splitlines()[0])
            del self._pending[: len(batch)]

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[AsyncConnection]:
        await self._settled()
        try:
            async with self._transaction() as connection:
                yield connection
        except Exception as error:
            logger.exception("The store of dead letters does not answer")
            raise HTTPException(503, "the store of dead letters does not answer; the log says why") from error

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        if self._directory and not self._ready:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with asyncio.timeout(PATIENCE), self._engine.begin() as connection:
            if not self._ready:  # not at the start: the service must come up while its database is away
                await connection.run_sync(_METADATA.create_all)
            yield connection
        self._ready = True


def _letter(row: RowMapping) -> DeadLetter:
    return DeadLetter(**row)


def _log_unstored(letter: DeadLetter, why: str) -> None:
    logger.error(
        "Dead letter of %s not stored (%s); this line is all that is left of it",
        letter.name,
        why,
        extra={"dead_letter": asdict(letter)},
    )
