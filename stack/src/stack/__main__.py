"""The command line behind the Makefile: `python -m stack up`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from stack._engine import EngineError
from stack._settings import UsageError, load_settings, recorded_runtime

if TYPE_CHECKING:
    from stack._runtime import Runtime
    from stack._settings import Settings

USAGE: Final = 2
INTERRUPTED: Final = 130


def main() -> int:
    """Run one command and return its exit code: 0 good, 1 not, 2 asked for wrongly."""
    arguments = _parser().parse_args()
    try:
        # `up` does what is asked for now; all others mean the stack that runs.
        return _run(arguments, load_settings(running=arguments.command != "up"))
    except UsageError as error:
        print(f"stack: {error}", file=sys.stderr)  # noqa: T201
        return USAGE
    except EngineError as error:
        print(f"stack: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("stack: interrupted; `make status` shows what runs, `make down` ends it", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _run(arguments: argparse.Namespace, settings: Settings) -> int:  # noqa: PLR0911  # one for each command
    # Imported where they are used: `make status` should not wait for what `make verify` needs.
    from stack import _runtime  # noqa: PLC0415

    runtime = _runtime.running(settings)
    match arguments.command:
        case "up":
            return _runtime.to_start(settings, recorded_runtime(settings)).up(settings)
        case "down":
            return runtime.down(settings)
        case "clean":
            return runtime.clean(settings)
        case "restart":
            return runtime.restart(settings, arguments.part)
        case "load-ui":
            return _load_ui(runtime, settings)
        case "status":
            return runtime.status(settings)
        case "logs":
            return runtime.logs(settings, arguments.part, arguments.lines, follow=arguments.follow)
        case "doctor":
            return runtime.doctor(settings)
        case "verify":
            from stack._verify import verify  # noqa: PLC0415

            return verify(settings)
        case _:
            from stack._load import load  # noqa: PLC0415

            return load(settings)


def _load_ui(runtime: Runtime, settings: Settings) -> int:
    code = runtime.start_part(settings, "loadtest")
    if code == 0:
        print(f"Locust waits for your click: {settings.locust_url}")  # noqa: T201
    return code


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description="The tracing stack; `make` lists the usual ways in.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status", "doctor", "verify", "load", "load-ui", "clean"):
        commands.add_parser(name)
    commands.add_parser("restart").add_argument("part", nargs="?", default="")
    logs = commands.add_parser("logs")
    logs.add_argument("part", nargs="?")
    logs.add_argument("--lines", type=_count, default=40)
    logs.add_argument("--follow", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
