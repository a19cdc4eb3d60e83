"""What both runtimes can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from stack.document import Found

NOT_RUNNING: Final = 3
"""The exit code of `status` when nothing runs, as of `systemctl status`."""


class Runtime(Protocol):
    """A way to run the stack. Every method prints what it does and returns an exit code."""

    @property
    def has_broker(self) -> bool:
        """Whether the endpoints that need a broker work."""

    def up(self) -> int:
        """Start the stack and wait until every part is healthy. Parts that run already are left as they are."""

    def down(self) -> int:
        """End the stack; what it stored is kept."""

    def clean(self) -> int:
        """End the stack and delete what it stored."""

    def status(self, found: Found | None = None) -> int:
        """Show every part: 0 when all are healthy, 1 when one is not, 3 when nothing runs.

        `found` gets `runtime`, `up` (whether anything runs), `healthy`, `memory_mb` (of all parts; null where nothing
        runs), and `parts`: for each its `part`, `state`, `healthy`, `problem` (a text, empty without one),
        `up_seconds`, `memory_mb`, `restarts`, and natively its `pid`.
        """

    def restart(self, part: str) -> int:
        """Stop one part, start it again and wait until it is healthy."""

    def start_part(self, part: str) -> int:
        """Start one part of a running stack and wait until it is healthy."""

    def logs(self, part: str | None, lines: int, *, follow: bool) -> int:
        """Print the last lines of one part's log, or of all logs; `follow` goes on with new lines."""

    def doctor(self, found: Found | None = None) -> int:
        """Check what this machine needs before anything starts: 0 when all is fine, else 1.

        `found` gets `runtime`, `fine`, and `checks`: for each its `name`, `fine`, `finding`, and `advice` (what to do;
        an empty text where nothing has to be done).
        """
