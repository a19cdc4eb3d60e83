"""The commands behind the Makefile."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from oap_embedded import OapEmbeddedError
from tracing_claims.variants import FAULTS

from stack.document import json_only
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
    from typing import NoReturn

    from stack.document import Found
    from stack.runtime import Runtime

USAGE: Final = 2
INTERRUPTED: Final = 130
VERIFY_OPTIONS: Final = ("service_url", "oap_url", "paths", "task_seconds")
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
    """Run one command and return its exit code: 0 for success, 1 for a failure, 2 for a wrong request.

    With `--json` the one thing on standard output is a JSON object: `exit_code`, `error` (a sentence; only where the
    command could not be done), and what the command has found, as its own docstring says.
    """
    found: Found = {}
    if "--json" not in sys.argv[1:]:
        return _main(found)
    with json_only(found):
        found["exit_code"] = _main(found)
    return int(found["exit_code"])


def _main(found: Found) -> int:
    try:
        arguments = _parser().parse_args()
        # `up` takes the settings of now; all other commands mean the running stack.
        settings = load_settings(running=arguments.command != "up")
        exempt_loopback()
        choose_cache(settings)
        return _run(arguments, settings, found)
    except UsageError as error:
        code, sentence = USAGE, str(error)
    except (EngineError, OapEmbeddedError) as error:
        code, sentence = 1, str(error)
    except KeyboardInterrupt:
        code, sentence = INTERRUPTED, "interrupted: `make status` shows what runs, `make down` ends it"
    found["error"] = sentence
    print(f"stack: {sentence}", file=sys.stderr)  # noqa: T201
    return code


def _run(arguments: argparse.Namespace, settings: Settings, found: Found) -> int:  # noqa: C901, PLR0911, PLR0912  # one for each command
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
            return runtime.status(found)
        case "logs":
            return runtime.logs(arguments.part, arguments.lines, follow=arguments.follow)
        case "doctor":
            return runtime.doctor(found)
        case "verify":
            # Imported where they are used: `make status` should not wait for what they need.
            from stack.verify import Wanted, verify, verify_service  # noqa: PLC0415

            if given := {name: value for name in VERIFY_OPTIONS if (value := getattr(arguments, name))}:
                return verify_service(settings, Wanted(**given), found)
            return verify(settings, found, has_broker=runtime.has_broker)
        case "report":
            from stack.report import report  # noqa: PLC0415

            return report(settings, quick=arguments.quick)
        case "incident":
            from stack.incidents import incident  # noqa: PLC0415

            return incident(settings, arguments.name)
        case "compare" | "crash":
            from stack.compare import command as comparing  # noqa: PLC0415

            told = {"quick": arguments.quick, "docs": arguments.docs}
            if arguments.command == "crash":
                return comparing.crash(settings, arguments.broker, arguments.variants, arguments.faults, **told)
            return comparing.compare(settings, arguments.broker, arguments.variants, **told)
        case _:
            from stack.load import Load, load  # noqa: PLC0415

            return load(settings, Load(**{name: getattr(arguments, name) for name in LOAD_OPTIONS}), found)


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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as the rest of the commands do, so that `--json` has it too."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="stack", description="The tracing stack; `make` lists the usual commands.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "load-ui", "clean"):
        commands.add_parser(name)
    told = {name: commands.add_parser(name) for name in ("status", "doctor", "verify", "load")}
    for one in told.values():
        one.add_argument("--json", action="store_true")
    told["verify"].add_argument("--service-url", default="")
    told["verify"].add_argument("--oap-url", default="")
    told["verify"].add_argument("--paths", nargs="*", default=[])
    told["verify"].add_argument("--task-seconds", type=_positive)
    commands.add_parser("restart").add_argument("part", nargs="?", default="")
    logs = commands.add_parser("logs")
    logs.add_argument("part", nargs="?")
    logs.add_argument("--lines", type=_count, default=40)
    logs.add_argument("--follow", action="store_true")
    loading = told["load"]
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
        if name == "crash":
            comparing.add_argument("--faults", nargs="*", choices=FAULTS, default=())
    commands.add_parser("incident").add_argument("name", nargs="?", default="")
    commands.add_parser("report").add_argument("--quick", action="store_true")
    return parser
