"""What waits for OAP: a bounded queue of one kind of thing, taken in batches, of which nothing is lost in silence."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from skywalking_background._failures import DeliveryError, RefusedError, TimedOutError
from skywalking_background._faults import logger
from skywalking_background._limits import BATCH_BYTES, BATCH_ITEMS, QUEUE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


_TIMEOUTS = 2
"""How often one batch may get no answer until it is sent in halves."""
_REFUSALS = 20
"""How many batches in a row may be refused until OAP is believed to refuse everything: more than halving one takes."""


class Counts(NamedTuple):
    """What became of the segments or logs of this process: acknowledged by OAP, waiting, given up."""

    sent: int
    queued: int
    dropped: int


class _Batch:
    """Items that travel together, or the half of such that was refused."""

    __slots__ = ("items", "sent_before", "size", "timeouts")

    def __init__(self, items: list[bytes]) -> None:
        self.items = items
        self.size = sum(map(len, items))
        self.timeouts = 0
        self.sent_before: int | None = None
        """How many items had been sent when this one failed: OAP took others since, if there are more now."""

    def halves(self) -> list[_Batch]:
        middle = len(self.items) // 2
        return [_Batch(self.items[:middle]), _Batch(self.items[middle:])]


class Lane:
    """A queue of one kind of thing, and how a batch of it reaches OAP.

    What is finished is encoded at once. It costs the request what it would cost the reporter's thread, but the hundreds
    of objects that a trace consists of die young: kept in the queue they would grow old there, and the garbage
    collector would go through all running tasks the more often.

    A batch that OAP refuses is halved until the one item is found that it will not take. That one is dropped when it is
    too large to travel, or when OAP took others meanwhile: an OAP that takes nothing at all is ill, and everything is
    kept for it.

    Args:
        name: what the items are, in the plural.
        limit: how many may wait.
        encode: makes bytes of an item; runs where the item was finished.
        send: delivers a batch; raises a `DeliveryError` when OAP did not acknowledge it.
        describe: names an item that is dropped.
        begin: called by each `put` until it returns `True`: starts what calls `step`.
    """

    def __init__(  # noqa: PLR0913  # what differs between segments and logs
        self,
        name: str,
        limit: int,
        *,
        encode: Callable[[Any], bytes],
        send: Callable[[list[bytes]], object],
        describe: Callable[[bytes], str],
        begin: Callable[[], bool],
    ) -> None:
        self.name = name
        self.limit = limit
        self.encode = encode
        self.send = send
        self.describe = describe
        self.begin = begin
        self.sent = 0
        self.rejected = 0  # OAP will never take it
        self.refused = 0  # did not fit into the queue
        self.broken = 0  # could not be encoded
        self._unready = True  # not begun, or full
        # Reentrant, as a signal's handler may put something while its thread is in here.
        self._lock = threading.RLock()
        self._queue: deque[bytes] = deque()
        self._bytes_in = 0
        # The rest only the delivering thread touches.
        self._bytes_out = 0
        self._taken = 0  # items of the following two
        self._batches: deque[_Batch] = deque()
        self._aside: deque[_Batch] = deque()  # failed alone, and may not again
        self._refusals = 0  # in a row

    def put(self, item: Any) -> None:  # noqa: ANN401  # a Segment or a LogData, or the bytes of one
        """Queue what is finished; never raises, for the request has no part in it."""
        if self._unready and not self._make_ready():
            return
        try:
            encoded = item if type(item) is bytes else self.encode(item)
        except Exception:
            with self._lock:
                self.broken += 1
                first = self.broken == 1
            if first:
                text = "one of the %s can't be encoded and is dropped; others like it are only counted"
                logger.exception(text, self.name)
            return
        # No lock, which would double what this costs: appending is atomic. So is adding up, as long as there is a
        # global interpreter lock; without one the sum may be off by a few items until the queue is empty again.
        self._queue.append(encoded)
        self._bytes_in += len(encoded)
        if len(self._queue) + self._taken >= self.limit or self._bytes_in - self._bytes_out >= QUEUE_BYTES:
            self._unready = True

    def _make_ready(self) -> bool:
        """Do what is rarely to be done before something is queued; `False` when it must not be."""
        try:
            begun = self.begin()
        except Exception:
            begun = False
            logger.exception("the delivery of %s can't begin yet", self.name)
        with self._lock:
            full = len(self._queue) + self._taken >= self.limit or self._bytes_in - self._bytes_out >= QUEUE_BYTES
            self._unready = full or not begun
            if full:
                self.refused += 1
        return not full

    @property
    def counts(self) -> Counts:
        """What became of all items so far."""
        return Counts(self.sent, len(self._queue) + self._taken, self.refused + self.broken + self.rejected)

    @property
    def settled(self) -> int:
        """How many have left the queue, for OAP or for good."""
        return self.sent + self.rejected

    def has_settled(self, goal: int) -> bool:
        """Say whether so many have left, or nothing is left to leave."""
        return self.settled >= goal or not (self._queue or self._taken)

    @property
    def fills_a_batch(self) -> bool:
        """Whether enough waits for a call of its own, or half of what may wait."""
        return len(self._queue) >= min(BATCH_ITEMS, self.limit // 2) or self._bytes_in - self._bytes_out >= BATCH_BYTES

    @property
    def stuck(self) -> bool:
        """Whether something is set aside."""
        return bool(self._aside)

    def step(self) -> bool:
        """Deliver the oldest batch; `False` when there is none that can be delivered now.

        Raises:
            DeliveryError: OAP did not acknowledge it, and others will fare no better now; it stays queued.
        """
        batch = self._next()
        if batch is None:
            return False
        try:
            self.send(batch.items)
        except RefusedError as error:
            self._refused(batch, error)
        except TimedOutError as error:
            self._timed_out(batch)
            raise error from None
        except Exception:
            self._batches.appendleft(batch)
            raise
        else:
            self._refusals = 0
            self.sent += len(batch.items)
            self._forget(batch)
        return True

    def retry(self) -> None:
        """Take up again what was set aside."""
        self._batches.extend(self._aside)
        self._aside.clear()

    def _next(self) -> _Batch | None:
        if self._batches:
            return self._batches.popleft()
        items: list[bytes] = []
        size = 0
        while self._queue and len(items) < BATCH_ITEMS:
            size += len(self._queue[0])
            if items and size > BATCH_BYTES:
                break
            self._taken += 1
            items.append(self._queue.popleft())
        if items:
            return _Batch(items)
        for _ in range(len(self._aside)):
            batch = self._aside.popleft()
            if batch.sent_before != self.sent:
                return batch  # OAP took others since: now it shows whether it is this one
            self._aside.append(batch)
        return None

    def _refused(self, batch: _Batch, error: RefusedError) -> None:
        others_taken = not self._refusals and batch.sent_before not in {None, self.sent}
        self._refusals += 1
        if len(batch.items) > 1:
            self._batches.extendleft(reversed(batch.halves()))
        elif batch.size > BATCH_BYTES or others_taken:
            self._drop(batch, error)
        else:
            batch.sent_before = self.sent
            self._aside.append(batch)
        if self._refusals >= _REFUSALS:
            self._refusals = 0
            raise error

    def _timed_out(self, batch: _Batch) -> None:
        batch.timeouts += 1
        if batch.timeouts < _TIMEOUTS:
            self._batches.appendleft(batch)
        elif len(batch.items) > 1:
            self._batches.extendleft(reversed(batch.halves()))
        elif batch.sent_before not in {None, self.sent}:
            self._drop(batch, TimedOutError("no answer to it, while others were taken"))
        else:
            batch.sent_before = self.sent
            self._aside.append(batch)

    def _drop(self, batch: _Batch, error: DeliveryError) -> None:
        self.rejected += 1
        self._forget(batch)
        try:
            name = self.describe(batch.items[0])
        except Exception:  # noqa: BLE001  # it may be what can't be read
            name = "unreadable"
        cause = f"{error}, too large" if batch.size > BATCH_BYTES else str(error)
        text = "OAP will never take one of the %s, it is dropped (%s): %s, %d bytes"
        logger.warning(text, self.name, cause, name, batch.size)

    def _forget(self, batch: _Batch) -> None:
        self._taken -= len(batch.items)
        self._bytes_out += batch.size
        if not (self._taken or self._queue):
            self._bytes_out = self._bytes_in
