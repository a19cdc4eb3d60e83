"""The commands behind the Makefile."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oap_embedded import OapEmbeddedError

from stack.runtime import EngineError, choose_runtime, current_runtime
from stack.settings import (
    Settings,
    UsageError,
    choose_cache,
    exempt_loopback,
    known_names,
    load_settings,
    recorded_runtime,
    typing_errors,
)

if TYPE_CHECKING:
    from stack.runtime import Runtime

USAGE: Final = 2
INTERRUPTED: Final = 130
LOAD_OPTIONS: Final = (
    "scenario",
    "users",
    "rate",
    "duration_seconds",
    "task_seconds",
    "processes",
    "tags",
    "trace_client",
)


def main() -> int:
    """Run one command and return its exit code: 0 for success, 1 for a failure, 2 for a wrong request."""
    arguments = _parser().parse_args()
    try:
        # `up` takes the settings of now; all other commands mean the running stack.
        settings = load_settings(running=arguments.command != "up")
        exempt_loopback()
        choose_cache(settings)
        return _run(arguments, settings)
    except UsageError as error:
        print(f"stack: {error}", file=sys.stderr)  # noqa: T201
        return USAGE
    except (EngineError, OapEmbeddedError) as error:
        print(f"stack: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("stack: interrupted: `make status` shows what runs, `make down` ends it", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _run(arguments: argparse.Namespace, settings: Settings) -> int:  # noqa: C901, PLR0911, PLR0912  # one for each command
    runtime = current_runtime(settings)
    match arguments.command:
        case "up":
            for sentence in typing_errors(known_names(Settings)):
                print(f"stack: {sentence}", file=sys.stderr)  # noqa: T201
            return choose_runtime(settings, recorded_runtime(settings)).up()
        case "down":
            return runtime.down()
        case "clean":
            return runtime.clean()
        case "restart":
            return runtime.restart(arguments.part)
        case "load-ui":
            return _load_ui(runtime, settings)
        case "status":
            return runtime.status()
        case "logs":
            return runtime.logs(arguments.part, arguments.lines, follow=arguments.follow)
        case "doctor":
            return runtime.doctor()
        case "verify":
            # Imported where they are used: `make status` should not wait for what they need.
            from stack.verify import verify  # noqa: PLC0415

            return verify(settings, has_broker=runtime.has_broker)
        case "report":
            from stack.report import report  # noqa: PLC0415

            return report(settings, quick=arguments.quick)
        case "incident":
            from stack.incidents import incident  # noqa: PLC0415

            return incident(settings, arguments.name)
        case "compare" | "crash":
            from stack.compare import command as comparing  # noqa: PLC0415

            if arguments.command == "crash" and arguments.progress is not None:
                (variant,), (fault,) = arguments.variants, arguments.faults
                return comparing.crash_followed(settings, arguments.broker, variant, fault, arguments.progress)
            run = comparing.compare if arguments.command == "compare" else comparing.crash
            return run(settings, arguments.broker, arguments.variants, quick=arguments.quick, docs=arguments.docs)
        case _:
            from stack.load import Load, load  # noqa: PLC0415

            return load(settings, Load(**{name: getattr(arguments, name) for name in LOAD_OPTIONS}))


def _load_ui(runtime: Runtime, settings: Settings) -> int:
    code = runtime.start_part("loadtest")
    if code == 0:
        print(f"Locust's page: {settings.locust_url}")  # noqa: T201
    return code


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _seconds(text: str) -> float:
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        return _positive(text[:-1] if unit else text) * (unit or 1)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 90s or 5m") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description="The tracing stack; `make` lists the usual commands.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status", "doctor", "verify", "load-ui", "clean"):
        commands.add_parser(name)
    commands.add_parser("restart").add_argument("part", nargs="?", default="")
    logs = commands.add_parser("logs")
    logs.add_argument("part", nargs="?")
    logs.add_argument("--lines", type=_count, default=40)
    logs.add_argument("--follow", action="store_true")
    loading = commands.add_parser("load")
    loading.add_argument("--scenario", default="smoke")
    loading.add_argument("--users", type=_count)
    loading.add_argument("--rate", type=_positive)
    loading.add_argument("--duration", type=_seconds, dest="duration_seconds")
    loading.add_argument("--task-seconds", type=_positive)
    loading.add_argument("--processes", type=_count)
    loading.add_argument("--tags", nargs="*", default=())
    loading.add_argument("--trace-client", action="store_true")
    for name in ("compare", "crash"):
        comparing = commands.add_parser(name)
        comparing.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
        comparing.add_argument("--variants", nargs="*", default=())
        comparing.add_argument("--quick", action="store_true")
        comparing.add_argument("--docs", action="store_true")
        if name == "crash":  # how the console's page asks for one of each
            comparing.add_argument("--faults", nargs=1, choices=("kill", "term", "broker"), help=argparse.SUPPRESS)
            comparing.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    commands.add_parser("incident").add_argument("name", nargs="?", default="")
    commands.add_parser("report").add_argument("--quick", action="store_true")
    return parser
