"""Telling how far the fetching is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oap_embedded._lock import Jar

_EVERY: Final = 3.0
"""Seconds between two lines where there is no terminal."""


class Tally:
    """How many bytes of each jar are there, whatever was resumed, repeated or begun anew; safe between threads."""

    def __init__(self, jars: Sequence[Jar], show: Callable[[Tally], None]) -> None:
        self.jars = len(jars)
        self.size = sum(jar.size for jar in jars)
        self._have: dict[str, int] = {}
        self._done: set[str] = set()
        self._show = show
        self._lock = threading.Lock()

    @property
    def have(self) -> int:
        """The bytes that are there."""
        return sum(self._have.values())

    @property
    def done(self) -> int:
        """The jars that are there, and right."""
        return len(self._done)

    def at(self, jar: Jar, position: int) -> None:
        """Note that the jar's first `position` bytes are there."""
        with self._lock:
            self._have[jar.name] = position
            self._show(self)

    def complete(self, jar: Jar) -> None:
        """Note that the jar is what the lock says."""
        with self._lock:
            self._done.add(jar.name)
            self._show(self)


@contextmanager
def progress(jars: Sequence[Jar]) -> Iterator[Tally]:
    """Show, on standard error, how a tally of these jars grows."""
    console = Console(stderr=True)
    size = sum(jar.size for jar in jars)
    title = f"fetching SkyWalking OAP: {len(jars)} jars, {size / 1e6:.0f} MB (kept for next time)"
    console.print(title, highlight=False)
    if not console.is_terminal:
        yield Tally(jars, _lines(console))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("OAP", total=size)

        def show(tally: Tally) -> None:
            bar.update(task, completed=tally.have, description=f"jar {tally.done} of {tally.jars}")

        yield Tally(jars, show)


def _lines(console: Console) -> Callable[[Tally], None]:
    started = time.monotonic()
    shown = started

    def show(tally: Tally) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < _EVERY and tally.done < tally.jars:
            return
        shown = now
        megabytes = tally.have / 1e6
        speed = megabytes / max(now - started, 0.001)
        line = f"  {megabytes:.0f} of {tally.size / 1e6:.0f} MB, {tally.done} of {tally.jars} jars, {speed:.1f} MB/s"
        console.print(line, highlight=False)

    return show
