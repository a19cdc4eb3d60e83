"""`python -m skywalking_background doctor`: why does SkyWalking show nothing, and what is to be done."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple

from skywalking import config

from skywalking_background import _probe, background_span, current_trace_id, flush, start, untraced
from skywalking_background._protocol import PACKED

if TYPE_CHECKING:
    from collections.abc import Iterator

FLUSH_SECONDS: Final = 2.0
FORK_SECONDS: Final = 4.0


class Check(NamedTuple):
    """One line of the doctor's: what was looked at, whether it is as it should be, and what it is or what to do.

    `good` is `None` for what was not looked at.
    """

    name: str
    good: bool | None
    text: str


def checks(query: str = "", seconds: float = 40.0) -> Iterator[Check]:
    """Look at one thing after the other; what follows from a failure is left out.

    Args:
        query: OAP's HTTP address; with it a test segment is sent and read back.
        seconds: how long OAP may take until it shows that segment.
    """
    # What is found is said below, once and in other words.
    logging.getLogger("skywalking").setLevel(logging.CRITICAL)
    logging.getLogger("skywalking_background").setLevel(logging.CRITICAL)
    yield _agent()
    if os.environ.get("SKYWALKING_BACKGROUND_ENABLED", "").strip().lower() in {"0", "false", "no", "off"}:
        yield Check("switch", False, "SKYWALKING_BACKGROUND_ENABLED switches the library off: unset it")
        return
    started = _start()
    yield started
    yield _name()
    if not started.good:
        return
    if config.agent_protocol != "grpc":
        text = f"SW_AGENT_PROTOCOL={config.agent_protocol}: only gRPC is looked at, so nothing more is"
        yield Check("OAP", None, text)
        return
    yield from _oap(query, seconds)


def _agent() -> Check:
    protocol = importlib.import_module("skywalking.protocol")
    packed = str(protocol.__file__).startswith(str(PACKED))
    whose = "packed with this library, as the agent's wheel lacks it" if packed else "the agent's own"
    return Check("agent", True, f"apache-skywalking {version('apache-skywalking')}; skywalking.protocol is {whose}")


def _start() -> Check:
    try:
        start()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what the user has to know
        return Check("plugin", False, f"{error}")
    if "sw_fastapi" in config.agent_disable_plugins:
        return Check("plugin", True, "the agent's own FastAPI plugin is off, as it should be")
    text = "the agent's own FastAPI plugin is on: set SW_AGENT_DISABLE_PLUGINS=sw_fastapi"
    return Check("plugin", False, text)


def _name() -> Check:
    if "SW_AGENT_NAME" in os.environ:
        return Check("name", True, f"the service is called {config.agent_name!r}")
    text = f"the service has no name, SkyWalking shows it as {config.agent_name!r}: set SW_AGENT_NAME"
    return Check("name", False, text)


def _oap(query: str, seconds: float) -> Iterator[Check]:
    address = config.agent_collector_backend_services
    place = _probe.split(address)
    if isinstance(place, str):
        yield Check("OAP", False, place)
        return
    if wrong := _reach(*place):
        yield Check("OAP", False, wrong)
        return
    # Before this process uses gRPC, which does not survive a fork.
    forked = _fork() if query else Check("fork", None, "not tried: with --query a forked child sends a segment")
    if wrong := _collect(address, *place):
        yield Check("OAP", False, wrong)
        return
    yield Check("OAP", True, f"{address} takes segments")
    yield forked
    if query:
        yield _segment(query, seconds)
    else:
        yield Check("segment", None, "not tried: --query http://<OAP>:12800 sends one and reads it back")


def _reach(host: str, port: int) -> str:
    """Look at the way to OAP with plain sockets; behind a proxy that says nothing."""
    if _probe.proxy(host):
        return ""
    return _probe.connect(host, port) or _probe.speaks(host, port, tls=config.agent_force_tls)


def _collect(address: str, host: str, port: int) -> str:
    proxy, tls, token = _probe.proxy(host), config.agent_force_tls, config.agent_authentication
    wrong = _probe.collects(address, tls=tls, authentication=token, through_proxy=bool(proxy))
    if not (wrong and proxy):
        return wrong
    if direct := _probe.connect(host, port) or _probe.speaks(host, port, tls=tls):
        return f"{direct}; the proxy in {proxy} does not reach it either"
    return f"the proxy in {proxy} is between here and OAP and does not let gRPC pass: add {host!r} to no_proxy"


def _fork() -> Check:
    """Report from a forked child, as a worker of `gunicorn --preload` or Celery does after its parent's `start`."""
    child = os.fork()
    if child == 0:
        done = False
        try:
            with background_span("skywalking_background doctor: a forked child"):
                pass
            done = flush(FLUSH_SECONDS)
        finally:
            os._exit(0 if done else 1)
    deadline = time.monotonic() + FORK_SECONDS
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    if os.waitstatus_to_exitcode(ended[1]) == 0:
        return Check("fork", True, "a forked child reports as well: gunicorn --preload and Celery's prefork pool work")
    text = (
        "a forked child can't report: start the work in new processes (gunicorn without --preload, "
        "multiprocessing's spawn), or unset SW_AGENT_EXPERIMENTAL_FORK_SUPPORT if it is set"
    )
    return Check("fork", False, text)


def _segment(query: str, seconds: float) -> Check:
    with background_span("skywalking_background doctor"):
        trace_id = current_trace_id()
    if trace_id is None:
        return Check("segment", False, "the agent's sampling left it out: try again, or unset SW_SAMPLE_N_PER_3_SECS")
    if not flush(FLUSH_SECONDS):
        return Check("segment", False, "OAP did not take the test segment: look into OAP's own log")
    with untraced():  # the agent traces urllib
        wrong = _probe.stored(query, trace_id, seconds)
    return Check("segment", not wrong, wrong or f"sent and read back: trace {trace_id}")
