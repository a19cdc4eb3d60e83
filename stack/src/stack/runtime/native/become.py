"""Becoming a part: what supervisord runs in its place.

supervisord's configuration can't hold every value: in `environment` no value has both kinds of quotes, and everywhere a
` ;` or ` #` begins a comment. So the command and the environment of each part are in a file beside it, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

FILE: Final = "parts.json"
RUN_DIR: Final = "TRACING_STACK_RUN_DIR"
"""The variable that every process of the stack has: its run folder."""


def main() -> None:
    """Turn this process into the part that the command line names."""
    run_dir, name = os.environ[RUN_DIR], sys.argv[1]
    part = json.loads(Path(run_dir, FILE).read_text(encoding="utf-8"))[name]
    environment = {**os.environ, **part["environment"]}
    command = part["command"]
    os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
