"""The one module that takes the SkyWalking agent apart: it starts in two steps, between which a process may be forked.

First the plugins, in the process that loads the app. Then, in each process that has something to report, the threads:
those for segments and logs are not needed, as ours is (see `_reporter`), and the others get our way to OAP.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
from typing import Any, Final

import grpc
from skywalking import config, meter, profile, sampling
from skywalking.agent import agent
from skywalking.meter.meter_service import MeterService
from starlette.middleware.exceptions import ExceptionMiddleware

from skywalking_background import _plugins, _runtime_meters
from skywalking_background._failures import DeliveryError
from skywalking_background._fork import INSTANCE, child_name, instance_name
from skywalking_background._ids import new_id
from skywalking_background._internals import SpanContext, plugins, use_context_class, use_ids, use_safe_values
from skywalking_background._internals.heartbeat import OverGrpc, OverHttp, OverKafka
from skywalking_background._kafka import require_kafka

# Wraps the same requests as we do, and keeps their span open until the background tasks end.
_OWN_PLUGIN: Final = "sw_fastapi"
_PROTOCOLS: Final = {"grpc": OverGrpc, "http": OverHttp, "kafka": OverKafka}
_WATCH_SECONDS: Final = 0.3
_RANDOM: Final = re.compile("[0-9a-f]{32}")
_PRIVATE: Final = "_SkyWalkingAgent__"


def install(context_class: type[SpanContext]) -> None:
    """Install the agent's plugins, all but its FastAPI plugin, and nothing that a fork would break.

    Raises:
        RuntimeError: a setting that can't be served; the text says which.
    """
    _check_settings()
    if not getattr(agent, f"{_PRIVATE}started"):
        config.agent_disable_plugins = [*config.agent_disable_plugins, _OWN_PLUGIN]
        if "SW_AGENT_LOGGING_LEVEL" not in os.environ:
            # It warns of each of some thirty packages that it could trace and that are not installed.
            config.agent_logging_level = "ERROR"
        if "SW_AGENT_PROFILE_ACTIVE" not in os.environ:
            # It samples the one thread that an endpoint runs on: of an event loop that says nothing.
            config.agent_profile_active = False
        # Ours does it, for every process and without gRPC's library. The agent's would report a second time.
        config.agent_experimental_fork_support = False
        # Its heartbeat and the like report an absent OAP at every try, with a stack trace: ours says it once.
        logging.getLogger("skywalking").addFilter(_Once())
        plugins.install = _plugins.install
        _name_instance()
        agent.start_prefork_master()
        _make_services()
    elif ExceptionMiddleware.__call__.__name__ == "_sw_fast_api":
        message = f"the agent runs with its FastAPI plugin: start it with SW_AGENT_DISABLE_PLUGINS={_OWN_PLUGIN}"
        raise RuntimeError(message)
    else:
        logging.getLogger("skywalking").addFilter(_Once())
    use_ids(new_id)
    use_context_class(context_class)
    use_safe_values()
    if _is_running():
        _take_over()


def _name_instance() -> None:
    """Give the instance a name that people can read, where it has the agent's own, which is random."""
    name = config.agent_instance_name
    if "SW_AGENT_INSTANCE_NAME" not in os.environ and _RANDOM.fullmatch(name):
        name = INSTANCE
    config.agent_instance_name = instance_name(name, config.agent_name)


def _check_settings() -> None:
    config.agent_protocol = str(config.agent_protocol).strip().lower()
    if config.agent_protocol not in _PROTOCOLS:
        message = f"SW_AGENT_PROTOCOL={config.agent_protocol!r} is none of grpc, http and kafka"
        raise RuntimeError(message)
    if config.agent_asyncio_enhancement:
        message = (
            "SW_AGENT_ASYNCIO_ENHANCEMENT=true is not supported: it reports from an event loop of its own. Unset it"
        )
        raise RuntimeError(message)
    if config.agent_protocol == "kafka":
        require_kafka()


def _is_running() -> bool:
    """Say whether the agent's own threads run in this process: somebody else started it."""
    return bool(agent.started()) and agent.started_pid == os.getpid()


def _make_services() -> None:
    """Make what spans and meters ask for before the threads run that belong to it."""
    if config.sample_n_per_3_secs > 0:
        # Imported here: the module takes the place of the service, in a package where both have the same name.
        from skywalking.sampling.sampling_service import SamplingService  # noqa: PLC0415

        sampling.sampling_service = SamplingService()
    if config.agent_meter_reporter_active:
        service = MeterService()
        if meter._meter_service is not None:  # noqa: SLF001
            service.meter_map = meter._meter_service.meter_map  # noqa: SLF001  # those that the app made stay
        meter._meter_service = service  # noqa: SLF001
    if config.agent_profile_active:
        profile.profile_task_execution_service = None
        profile.init()


def _take_over() -> None:
    """Let the threads of an agent that runs already talk through us."""
    before = _get("protocol")
    _set("protocol", _PROTOCOLS[config.agent_protocol]())
    if isinstance(getattr(before, "channel", None), grpc.Channel):
        # gRPC's thread that watches the connection for the agent looks up every 0.2 s whether anybody still wants it;
        # on a closed channel it would end with a stack trace.
        before.channel.unsubscribe(before._cb)  # noqa: SLF001
        time.sleep(_WATCH_SECONDS)
        before.channel.close()
    agent._finished = _SlowEvent()  # noqa: SLF001  # see there
    # At the process's end it would start threads, which Python 3.12 refuses then; its queues are empty anyway.
    atexit.unregister(_get("fini"))


def begin_threads() -> None:
    """Start the agent's threads for heartbeat, meters and profiles in this process."""
    if _is_running():
        if not isinstance(_get("protocol"), (OverGrpc, OverHttp, OverKafka)):
            _take_over()  # started since, by `sw-python` in a worker of gunicorn
        return
    agent.started_pid = os.getpid()
    _get("init_queues")()
    _set("protocol", _PROTOCOLS[config.agent_protocol]())
    agent._finished = _SlowEvent()  # noqa: SLF001
    names = ["heartbeat"]
    if config.agent_meter_reporter_active:
        names.append("report_meter")
        if config.agent_pvm_meter_reporter_active:
            _runtime_meters.begin()
    if config.agent_profile_active:
        names += ["command_dispatch", "query_profile_command", "send_profile_snapshot"]
    _set("reporting", True)
    threads = [threading.Thread(name=f"skywalking-{name}", target=_get(name), daemon=True) for name in names]
    if config.agent_meter_reporter_active:
        threads.append(meter._meter_service)  # noqa: SLF001
    if sampling.sampling_service is not None:
        threads.append(sampling.sampling_service)
    for thread in threads:
        thread.start()


def forget_parent() -> None:
    """In a forked process: an instance of its own, whose threads begin with its first segment."""
    protocol = _get("protocol")
    if isinstance(protocol, (OverGrpc, OverHttp, OverKafka)):
        protocol.close()
    config.agent_instance_name = child_name(config.agent_instance_name)
    _runtime_meters.forget()  # until its own threads begin
    if _is_running():  # somebody else started the agent, with its own support for forks
        _take_over()
        return
    _set("reporting", False)
    agent.started_pid = os.getpid()
    _make_services()


def _get(name: str) -> Any:  # noqa: ANN401  # whatever the agent has there
    return getattr(agent, _PRIVATE + name)


def _set(name: str, value: object) -> None:
    setattr(agent, _PRIVATE + name, value)


class _SlowEvent(threading.Event):
    """What the agent's threads wait on between two looks at their queues.

    They look 50 times a second, which costs an idle process 2 % of a core, and the queues of segments and logs stay
    empty for good. The others (heartbeat, meters, profiles) wait for a second or longer anyway.
    """

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else max(timeout, 1.0))


class _Once(logging.Filter):
    """Of what fails in the agent's threads: nothing when OAP is away, which ours says, and all else once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        if isinstance(error, (DeliveryError, grpc.RpcError)):
            return False
        kind = f"{type(error).__qualname__}: {error}"
        new = kind not in self.seen and len(self.seen) < 100  # noqa: PLR2004  # kinds: texts may hold numbers
        self.seen.add(kind)
        return new
