"""Becoming a part: what supervisord runs in the place of each part's own command.

supervisord's configuration can't hold every value: in `environment` no value has both kinds of quotes, and everywhere a
` ;` or ` #` begins a comment. So the command and the environment of each part are in a JSON file beside it.

This file is run by its path and imports nothing of the stack, which would take longer than the rest of a part's start.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Turn this process into a part. Arguments: the JSON file, and the part's name in it."""
    file, name = sys.argv[1:]
    part = json.loads(Path(file).read_text(encoding="utf-8"))[name]
    command, environment = part["command"], {**os.environ, **part["environment"]}
    if part["stdin"]:
        os.dup2(os.open(part["stdin"], os.O_RDONLY), 0)
    os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
