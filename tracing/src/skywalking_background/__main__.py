"""`python -m skywalking_background doctor`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from skywalking_background import _doctor

_MARKS: Final = {True: "ok", False: "FAILED", None: "-"}


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each check; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m skywalking_background", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="say why SkyWalking shows nothing, and what to do about it")
    doctor.add_argument(
        "--query", default="", help="OAP's HTTP address: send a test segment and read it back from there"
    )
    doctor.add_argument("--wait", type=float, default=40.0, help="seconds that OAP may take to show it (default: 40)")
    options = parser.parse_args(arguments)
    failed = 0
    for check in _doctor.checks(options.query, options.wait):
        failed += check.good is False
        print(f"{_MARKS[check.good]:7} {check.name:8} {check.text}", flush=True)  # noqa: T201  # its task
    return 1 if failed else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # nothing is left to deliver, and what the agent does at the end of a process takes its time
