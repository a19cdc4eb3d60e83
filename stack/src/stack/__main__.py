"""The command line behind the Makefile: `python -m stack up`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def main() -> int:
    """Run one command and return its exit code: 0 for success, 1 for a failure, 2 for a wrong request."""
    try:
        from stack.commands import main as run  # noqa: PLC0415  # a package that can't be imported is reported below
    except ImportError as error:
        # Without its stamp the next `make` checks the environment and repairs it.
        (Path(sys.prefix) / ".synced").unlink(missing_ok=True)
        message = f"a package in {sys.prefix} is damaged ({error}): run the command again, which repairs it"
        print(f"stack: {message}", file=sys.stderr)  # noqa: T201
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a command has started is ended with it
    return run()


if __name__ == "__main__":
    sys.exit(main())
