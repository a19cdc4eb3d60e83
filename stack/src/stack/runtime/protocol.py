"""What both runtimes can do."""

from __future__ import annotations

from typing import Final, Protocol

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

    def status(self) -> int:
        """Show every part: 0 when all are healthy, 1 when one is not, 3 when nothing runs."""

    def restart(self, part: str) -> int:
        """Stop one part, start it again and wait until it is healthy."""

    def start_part(self, part: str) -> int:
        """Start one part of a running stack and wait until it is healthy."""

    def logs(self, part: str | None, lines: int, *, follow: bool) -> int:
        """Print the last lines of one part's log, or of all logs; `follow` goes on with new lines."""

    def doctor(self) -> int:
        """Check what this machine needs before anything starts."""
