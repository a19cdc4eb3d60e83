"""Those that look at this process's open tasks, as the settings want it: start reports, events, the journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skywalking_background import _running
from skywalking_background._events import RunningEvents
from skywalking_background._faults import note
from skywalking_background._internals import config
from skywalking_background._journal import Journal
from skywalking_background._limits import EVENT_SECONDS, START_REPORT_SECONDS
from skywalking_background._rescue import Rescue
from skywalking_background._start_reports import StartReports

if TYPE_CHECKING:
    from collections.abc import Callable

    from skywalking_background._lane import Lane
    from skywalking_background._rescue import Lost
    from skywalking_background._running import Watch


def journal_folder() -> Path | None:
    """Return the folder that `SKYWALKING_BACKGROUND_JOURNAL` names, if it does."""
    text = os.environ.get("SKYWALKING_BACKGROUND_JOURNAL", "").strip()
    return Path(text).absolute() if text else None


class Observers:
    """All of them, for one process.

    Args:
        segments: the lane that takes what other processes have left open.
        logs: the lane that takes the log lines.
        send_events: delivers events; `None` where OAP takes none.
    """

    def __init__(self, segments: Lane, logs: Lane, send_events: Callable[[list[bytes]], object] | None) -> None:
        folder = journal_folder()
        self.lines: StartReports | None = None
        self.events: RunningEvents | None = None
        self.journal: Journal | None = None
        self.rescue: Rescue | None = None
        if START_REPORT_SECONDS is not None and config.agent_log_reporter_active:
            self.lines = StartReports(START_REPORT_SECONDS, logs.put)
        if folder is not None:
            self.journal = Journal(folder)
            self.rescue = Rescue(folder, self.journal.path, segments, self._lost)
            self.journal.on_round = self.rescue.step
        if EVENT_SECONDS is not None and send_events is not None:
            begun = self.journal.note_event if self.journal is not None else None
            self.events = RunningEvents(EVENT_SECONDS, send_events, begun)

    def finds_lost(self) -> bool:
        """Say whether a process that is gone has left something to close."""
        return self.rescue is not None and self.rescue.finds()

    @property
    def watches(self) -> tuple[Watch[Any], ...]:
        """What each task enters."""
        return tuple(one.watch for one in (self.lines, self.events, self.journal) if one is not None)

    def start(self) -> None:
        """Start the journal's thread, if there is one; for the moment in which the process begins to report."""
        try:
            if self.journal is not None:
                self.journal.start()
        except Exception:  # noqa: BLE001
            note("starting the journal")

    def look(self) -> None:
        """Report what runs: called in each of the reporter's rounds."""
        if self.lines is not None:
            self.lines.look()
        if self.events is not None:
            self.events.look()

    def before_delivery(self) -> None:
        """Let the journal know first what the segments say that are delivered now."""
        if self.journal is not None:
            self.journal.before_delivery()

    def close(self) -> None:
        """End with the process."""
        if self.journal is not None:
            self.journal.close()

    def forget(self) -> None:
        """In a forked process: let go of what is the parent's."""
        _running.watch_by((), bool)
        if self.journal is not None:
            self.journal.forget()
        if self.rescue is not None:
            self.rescue.forget()

    def _lost(self, lost: Lost) -> None:
        if self.events is not None:
            self.events.lost(lost)
