"""The command line behind the Makefile: `python -m stack up`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Run one command and return its exit code: 0 good, 1 not, 2 asked for wrongly."""
    try:
        from stack._commands import main as run  # noqa: PLC0415  # only what can be imported says what cannot
    except ImportError as error:
        # Without its stamp the environment is looked at, and mended, by the next `make`.
        (Path(sys.prefix) / ".synced").unlink(missing_ok=True)
        print(f"stack: a package in {sys.prefix} is damaged ({error}): try again, and it is mended", file=sys.stderr)  # noqa: T201
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
