"""The limit of open files, which connections share with the database, the log and OAP."""

from __future__ import annotations

import logging
import os
import resource

logger = logging.getLogger(__name__)


class Descriptors:
    """Says whether enough are left, and logs one line when they are not, and one when they are again."""

    def __init__(self, spare: int) -> None:
        self.limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._highest = self.limit - spare if self.limit != resource.RLIM_INFINITY else float("inf")
        self._fine = self._highest - spare  # below: not each connection that comes and goes shall be a line
        self._exhausted = False

    @property
    def reason(self) -> str:
        """What to tell a client."""
        return f"the limit of {self.limit} open files is reached: try again when some connections have ended"

    def take(self, descriptor: int) -> bool:
        """Say whether a new connection may keep this descriptor: it is the lowest that was free."""
        self._note(descriptor)
        return descriptor < self._highest

    def exhausted(self) -> bool:
        """Ask for the lowest descriptor that is free: all below are taken."""
        try:
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not a single one
            descriptor = self.limit
        else:
            os.close(descriptor)
        self._note(descriptor)
        return self._exhausted

    def _note(self, descriptor: int) -> None:
        if descriptor >= self._highest and not self._exhausted:
            self._exhausted = True
            logger.error(
                "The limit of %d open files is reached: new connections get 503; `ulimit -n` raises it", self.limit
            )
        elif descriptor < self._fine and self._exhausted:
            self._exhausted = False
            logger.info("There are open files to spare again")
