"""Arguments of our own, on the command line, as environment variables and in the web page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from locust import events

if TYPE_CHECKING:
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment

_defaults: dict[str, Any] = {"stop_timeout": 20}  # s: requests under way are answered and counted


def defaults(users: int, run_time: int, *, spawn_rate: float | None = None, rate: float | None = None) -> None:
    """Say what a scenario does when nobody asks for anything else.

    Args:
        users: how many there are.
        run_time: s, after which the load ends.
        spawn_rate: users that start per second; all within the first second by default.
        rate: requests per second of all users together; by default each waits as its class says.
    """
    _defaults.update(num_users=users, run_time=run_time, spawn_rate=spawn_rate or users, rate=rate)


def forget_defaults() -> None:
    """Leave them to the web page, where several scenarios are there to choose from."""
    for name in ("num_users", "run_time", "spawn_rate", "rate"):
        _defaults.pop(name, None)


def number(environment: Environment, name: str) -> float | None:
    """Return an option as a number, `None` where it is not set: the web page gives text, and empty text for nothing."""
    value = getattr(environment.parsed_options, name)
    return None if value in {None, ""} else float(value)


@events.init_command_line_parser.add_listener
def _add(parser: LocustArgumentParser, **_: object) -> None:
    parser.add_argument("--rate", type=_positive, env_var="LOAD_RATE", help="Requests per second of all users together")
    parser.add_argument(
        "--task-seconds",
        type=float,
        env_var="LOAD_TASK_SECONDS",
        help="How long each background task runs (s, at most 60); the service's own default otherwise",
    )
    parser.add_argument(
        "--trace-client",
        action="store_true",
        env_var="LOAD_TRACE_CLIENT",
        help="Each request is the root of its trace: Locust is a service of its own in SkyWalking",
    )
    hidden: dict[str, Any] = {"include_in_web_ui": False}
    parser.add_argument(
        "--oap-url", env_var="LOAD_OAP_URL", help="OAP's HTTP port, which takes Locust's own spans", **hidden
    )
    parser.add_argument(
        "--results", env_var="LOAD_RESULTS", help="A folder for one line per request, with its trace", **hidden
    )
    parser.add_argument(
        "--trace-url",
        env_var="SERVICE_TRACE_URL",
        default="http://127.0.0.1:8088/traces/{trace_id}",
        help="Where a trace can be looked at",
        **hidden,
    )
    parser.set_defaults(**_defaults)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number
