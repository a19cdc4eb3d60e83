"""What was accepted and what was done, written down so that it can be counted after any crash.

Each process appends to a file of its own, `<folder>/<role>-<pid>.jsonl`, one JSON object a line:

    {"event": "accepted", "variant": "celery", "id": "0123…", "at_ms": 1764000000000}

- `accepted`: the service has answered 200, or is about to.
- `begun`: the work begins, or does so again.
- `done`: the work has run to its end. Twice for an id is work that was done twice.
- `dead`: the work failed for good and is a dead letter.

A line is one `write` to a file opened for appending: once that returns, the kernel has it, and no `kill -9` loses it.
It is not synced to the disk: a power cut is not what is counted here. Without a folder nothing is written.

`read(folder)` counts: for each variant the ids that were accepted, done, done twice, dead, and lost (accepted, and
neither done nor dead). Count when nothing runs any more.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Event = Literal["accepted", "begun", "done", "dead"]


class _Open:
    """The file of this process."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.role = "service"
        self.pid = 0
        self.descriptor = -1


_open = _Open()


def keep(folder: Path | None, role: str) -> None:
    """Write to this folder from now on; `None` for nowhere. Processes that are forked have files of their own."""
    _open.folder, _open.role, _open.pid = folder, role, 0
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)


def note(event: Event, variant: str, work_id: str | None) -> None:
    """Write down what became of a piece of work."""
    if _open.folder is None:
        return
    if _open.pid != os.getpid():
        _open.pid = os.getpid()
        path = _open.folder / f"{_open.role}-{_open.pid}.jsonl"
        _open.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    line = {"event": event, "variant": variant, "id": work_id, "at_ms": round(time.time() * 1000)}
    os.write(_open.descriptor, json.dumps(line).encode() + b"\n")


@dataclass
class Count:
    """What became of the work of one variant, as sets of ids."""

    accepted: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    done_twice: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)

    @property
    def lost(self) -> set[str]:
        """What was accepted and neither done nor is a dead letter."""
        return self.accepted - self.done - self.dead


def read(folder: Path) -> dict[str, Count]:
    """Count what all processes have written, by variant."""
    counts: dict[str, Count] = defaultdict(Count)
    times: Counter[tuple[str, str]] = Counter()
    for file in folder.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            variant, work_id = entry["variant"], entry["id"]
            count = counts[variant]
            getattr(count, entry["event"]).add(work_id)
            if entry["event"] == "done":
                times[variant, work_id] += 1
                if times[variant, work_id] > 1:
                    count.done_twice.add(work_id)
    return dict(counts)
