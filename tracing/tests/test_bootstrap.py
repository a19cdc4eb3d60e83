"""The agent in a process: started by us in two steps, or found running, each in a process of its own; and its parts."""

from __future__ import annotations

import functools
import logging
import os
import queue
import subprocess
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from skywalking_background import _plugins
from skywalking_background._failures import UnreachableError
from skywalking_background._fork import instance_name
from skywalking_background._ids import new_id
from skywalking_background._internals import SpanContext, bootstrap, heartbeat
from skywalking_background._internals.bootstrap import _Once
from skywalking_background._internals.heartbeat import OverGrpc, OverHttp, OverKafka

if TYPE_CHECKING:
    from collections.abc import Iterator


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:9",
        "SW_AGENT_INSTANCE_NAME": "main",
        **variables,
    }
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_until_there_is_something_to_report_nothing_runs() -> None:
    program = """if True:
        import gc, threading, time
        import skywalking_background as sw
        from skywalking_background import _agent
        sw.start()
        import grpc
        def channels(): return sum(isinstance(one, grpc.Channel) for one in gc.get_objects())
        print(threading.active_count(), channels())
        _agent.begin_reporting()
        deadline = time.monotonic() + 20
        while threading.active_count() < 6 and time.monotonic() < deadline: time.sleep(0.02)
        time.sleep(0.2)
        print(sorted(thread.name for thread in threading.enumerate()), channels())
    """
    first, second = run(program, SW_SAMPLE_N_PER_3_SECS="5").stdout.splitlines()
    assert first == "1 0"
    names = "MainThread SamplingService meterService skywalking-background-reporter"
    assert second == str(sorted([*names.split(), "skywalking-heartbeat", "skywalking-report_meter"])) + " 0"


def test_an_agent_that_runs_already_is_taken_over() -> None:
    program = """if True:
        import time
        from skywalking.agent import agent
        agent.start()
        channel = agent._SkyWalkingAgent__protocol.channel
        import skywalking_background as sw
        sw.start()
        try:
            channel.unary_unary("/any")(b"")
        except ValueError as error:
            print(error)
        with sw.background_span("job"): pass
        time.sleep(0.3)
        print(type(agent._SkyWalkingAgent__protocol).__name__, sw.counts()["segments"].queued)
    """
    done = run(program, SW_AGENT_DISABLE_PLUGINS="sw_fastapi", SW_AGENT_LOGGING_LEVEL="CRITICAL")
    # No channel of gRPC's is left, which a fork would break.
    assert done.stdout == "Cannot invoke RPC on closed channel!\nOverGrpc 1\n"
    assert "Traceback" not in done.stderr


def test_a_child_is_an_instance_of_its_own_with_a_sampler_and_meters_of_its_own() -> None:
    program = """if True:
        import os
        import skywalking_background as sw
        from skywalking import config, meter, sampling
        from skywalking.meter.counter import Counter, CounterMode
        from skywalking_background._spans import sampled
        sw.start()
        Counter.Builder("jobs", CounterMode.INCREMENT).build()
        assert [sampled() for _ in range(3)] == [True, True, False]
        sampling.sampling_service.lock.acquire()  # held by a thread while another one forks
        for level in range(2):
            if pid := os.fork():
                os.waitpid(pid, 0)
                os._exit(0)
            name = config.agent_instance_name.replace(str(os.getpid()), "PID")
            print(name, [sampled() for _ in range(3)], sorted(meter._meter_service.meter_map), flush=True)
    """
    done = run(program, SW_SAMPLE_N_PER_3_SECS="2")
    assert done.stdout.splitlines() == ["main-child(PID) [True, True, False] ['jobs']"] * 2


def test_a_child_that_can_not_report_says_so_and_sends_nothing_of_its_parent() -> None:
    program = """if True:
        import logging, os
        logging.basicConfig()
        import skywalking_background as sw
        from skywalking_background._internals import bootstrap
        sw.start()
        with sw.background_span("job"): pass
        def fail(): raise ValueError("on purpose")
        bootstrap.forget_parent = fail
        if pid := os.fork():
            os.waitpid(pid, 0)
            os._exit(0)
        with sw.background_span("job"): pass
        print(sw.counts()["segments"].queued, flush=True)
        os._exit(0)
    """
    done = run(program)
    assert done.stdout == "1\n"
    assert done.stderr.count("may not report to OAP") == 1
    assert "ValueError: on purpose" in done.stderr


def test_what_fails_in_the_threads_of_the_agent_is_said_once() -> None:
    once = _Once()

    def said(error: Exception | None) -> bool:
        info = None if error is None else (type(error), error, None)
        return once.filter(logging.LogRecord("skywalking", logging.ERROR, "", 0, "text", None, info))

    assert said(None)
    assert said(None)
    assert not said(UnreachableError("connection refused"))
    assert said(TypeError("a"))
    assert not said(TypeError("a"))
    assert said(TypeError("b"))


# Its parts, in this process: the agent is a stand-in.

PRIVATE = "_SkyWalkingAgent__"
THREADS = ("heartbeat", "report_meter", "command_dispatch", "query_profile_command", "send_profile_snapshot")


class Agent:
    """What the agent has of these names; it notes what is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.running = False
        self.started_pid = 0
        self._finished: Any = None
        for name in (*THREADS, "init_queues", "fini"):
            self.__dict__[PRIVATE + name] = functools.partial(self.calls.append, name)
        self.__dict__.update({PRIVATE + "started": False, PRIVATE + "reporting": None, PRIVATE + "protocol": None})

    def has(self, name: str) -> Any:
        return getattr(self, PRIVATE + name)

    def started(self) -> bool:
        return self.running

    def start_prefork_master(self) -> None:
        self.calls.append("start_prefork_master")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(
        agent_protocol=" gRPC ", agent_asyncio_enhancement=False, agent_disable_plugins=["sw_x"],
        agent_logging_level="INFO", agent_profile_active=True, agent_experimental_fork_support=True,
        agent_instance_name="main", agent_name="shop", agent_meter_reporter_active=False,
        agent_pvm_meter_reporter_active=False, sample_n_per_3_secs=0,
        agent_collector_backend_services="127.0.0.1:9",
    )  # fmt: skip
    monkeypatch.setattr(bootstrap, "config", found)
    monkeypatch.setattr(heartbeat, "config", found)
    for name in ("SW_AGENT_LOGGING_LEVEL", "SW_AGENT_PROFILE_ACTIVE", "SW_AGENT_INSTANCE_NAME"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, settings: SimpleNamespace) -> Iterator[Agent]:
    found = Agent()
    monkeypatch.setattr(bootstrap, "agent", found)
    monkeypatch.setattr(bootstrap, "plugins", SimpleNamespace())
    for name in ("use_ids", "use_context_class"):
        monkeypatch.setattr(bootstrap, name, lambda what, name=name: found.calls.append((name, what)))
    monkeypatch.setattr(bootstrap, "use_safe_values", lambda: found.calls.append("use_safe_values"))
    monkeypatch.setattr(bootstrap.sampling, "sampling_service", None)
    monkeypatch.setattr(bootstrap.meter, "_meter_service", None)
    before = list(logging.getLogger("skywalking").filters)
    yield found
    logging.getLogger("skywalking").filters[:] = before


OURS = [("use_ids", new_id), ("use_context_class", SpanContext), "use_safe_values"]


def filters() -> list[Any]:
    return [one for one in logging.getLogger("skywalking").filters if isinstance(one, _Once)]


def test_a_first_start_turns_off_what_is_ours_to_do(agent: Agent, settings: SimpleNamespace) -> None:
    before = len(filters())
    bootstrap.install(SpanContext)
    assert agent.calls == ["start_prefork_master", *OURS]
    assert settings.agent_protocol == "grpc"
    assert settings.agent_disable_plugins == ["sw_x", "sw_fastapi"]
    assert (settings.agent_logging_level, settings.agent_profile_active) == ("ERROR", False)
    assert settings.agent_experimental_fork_support is False
    assert settings.agent_instance_name == instance_name("main", "shop")
    assert bootstrap.plugins.install is _plugins.install
    assert len(filters()) == before + 1


def test_what_the_user_has_set_stays(agent: Agent, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SW_AGENT_LOGGING_LEVEL", "INFO")
    monkeypatch.setenv("SW_AGENT_PROFILE_ACTIVE", "true")
    monkeypatch.setattr(bootstrap.profile, "profile_task_execution_service", "old")
    monkeypatch.setattr(bootstrap.profile, "init", lambda: agent.calls.append("profile"))
    bootstrap.install(SpanContext)
    assert (settings.agent_logging_level, settings.agent_profile_active) == ("INFO", True)
    assert agent.calls == ["start_prefork_master", "profile", *OURS]
    assert bootstrap.profile.profile_task_execution_service is None


@pytest.mark.parametrize("running", [False, True])
def test_an_agent_that_was_started_gets_our_parts_all_the_same(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    agent.__dict__[PRIVATE + "started"] = True
    agent.running, agent.started_pid = running, os.getpid()
    monkeypatch.setattr(bootstrap, "_take_over", lambda: agent.calls.append("taken over"))
    before = len(filters())
    bootstrap.install(SpanContext)
    assert agent.calls == [*OURS, *(["taken over"] if running else [])]
    assert len(filters()) == before + 1


def test_an_agent_with_its_fastapi_plugin_is_refused(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def _sw_fast_api() -> None: ...

    agent.__dict__[PRIVATE + "started"] = True
    monkeypatch.setattr(bootstrap.ExceptionMiddleware, "__call__", _sw_fast_api)
    with pytest.raises(RuntimeError) as raised:
        bootstrap.install(SpanContext)
    text = "the agent runs with its FastAPI plugin: start it with SW_AGENT_DISABLE_PLUGINS=sw_fastapi"
    assert str(raised.value) == text
    assert agent.calls == []


@pytest.mark.parametrize(("setting", "value", "text"), [
    ("agent_protocol", "Carrier ", "SW_AGENT_PROTOCOL='carrier' is none of grpc, http and kafka"),
    ("agent_asyncio_enhancement", True,
     "SW_AGENT_ASYNCIO_ENHANCEMENT=true is not supported: it reports from an event loop of its own. Unset it"),
])  # fmt: skip
def test_a_setting_that_cannot_be_served_is_said(
    agent: Agent, settings: SimpleNamespace, setting: str, value: object, text: str
) -> None:
    setattr(settings, setting, value)
    with pytest.raises(RuntimeError) as raised:
        bootstrap.install(SpanContext)
    assert str(raised.value) == text
    assert agent.calls == []


@pytest.mark.parametrize("protocol", ["grpc", "HTTP", "kafka"])
def test_kafkas_package_is_looked_for_where_it_is_needed(
    settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(bootstrap, "require_kafka", lambda: asked.append("kafka"))
    settings.agent_protocol = protocol
    bootstrap._check_settings()
    assert settings.agent_protocol == protocol.lower()
    assert asked == (["kafka"] if protocol == "kafka" else [])


@pytest.mark.parametrize(("name", "variable", "shown"), [
    ("0123456789abcdef" * 2, None, bootstrap.INSTANCE), ("main", None, "main"),
    ("0123456789abcdef" * 2, "0123456789abcdef" * 2, "0123456789abcdef" * 2),
    ("0123456789abcdef" * 2 + "0", None, "0123456789abcdef" * 2 + "0"),
])  # fmt: skip
def test_a_random_name_is_replaced_by_one_to_read(
    settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str, variable: str | None, shown: str
) -> None:
    if variable:
        monkeypatch.setenv("SW_AGENT_INSTANCE_NAME", variable)
    settings.agent_instance_name = name
    bootstrap._name_instance()
    assert settings.agent_instance_name == instance_name(shown, "shop")


@pytest.mark.parametrize(("started", "forked", "runs"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_an_agent_runs_in_the_process_that_started_it(agent: Agent, started: bool, forked: int, runs: bool) -> None:
    agent.running, agent.started_pid = started, os.getpid() + forked
    assert bootstrap._is_running() is runs


class Service:
    """The agent's threads for meters and samples."""

    def __init__(self) -> None:
        self.meter_map: Any = {}
        self.begun = False

    def start(self) -> None:
        self.begun = True


def test_what_was_metered_stays_when_the_service_is_made_anew(
    agent: Agent, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "MeterService", Service)
    settings.agent_profile_active = False
    settings.agent_meter_reporter_active = True
    bootstrap._make_services()
    first = bootstrap.meter._meter_service
    first.meter_map["jobs"] = 1
    bootstrap._make_services()
    second = bootstrap.meter._meter_service
    assert second is not first
    assert second.meter_map is first.meter_map
    assert bootstrap.sampling.sampling_service is None
    settings.sample_n_per_3_secs = 1
    bootstrap._make_services()
    assert bootstrap.sampling.sampling_service is not None


@pytest.mark.parametrize(("meters", "pvm", "profile", "names"), [
    (False, False, False, THREADS[:1]), (True, False, False, THREADS[:2]), (True, True, False, THREADS[:2]),
    (False, True, True, (THREADS[0], *THREADS[2:])),
])  # fmt: skip
def test_only_the_threads_that_are_wanted_begin(  # noqa: PLR0913, PLR0917
    agent: Agent, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch,
    meters: bool, pvm: bool, profile: bool, names: tuple[str, ...],
) -> None:  # fmt: skip
    begun: list[threading.Thread] = []

    def begin(thread: threading.Thread) -> None:
        begun.append(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    monkeypatch.setattr(bootstrap._runtime_meters, "begin", lambda: agent.calls.append("runtime"))
    monkeypatch.setattr(bootstrap.meter, "_meter_service", service := Service())
    monkeypatch.setattr(bootstrap.sampling, "sampling_service", sampler := Service())
    settings.agent_protocol = "grpc"
    settings.agent_meter_reporter_active, settings.agent_pvm_meter_reporter_active = meters, pvm
    settings.agent_profile_active = profile
    bootstrap.begin_threads()
    assert [thread.name for thread in begun] == [f"skywalking-{name}" for name in names]
    assert all(thread.daemon for thread in begun)
    assert [vars(thread)["_target"] for thread in begun] == [agent.has(name) for name in names]
    assert agent.calls == ["init_queues", *(["runtime"] if meters and pvm else [])]
    assert agent.has("reporting") is True
    assert agent.started_pid == os.getpid()
    assert type(agent.has("protocol")) is OverGrpc
    assert type(agent._finished) is bootstrap._SlowEvent
    assert (service.begun, sampler.begun) == (meters, True)


@pytest.mark.parametrize("ours", [True, False])
def test_threads_that_run_are_only_talked_for(agent: Agent, monkeypatch: pytest.MonkeyPatch, ours: bool) -> None:
    agent.running, agent.started_pid = True, os.getpid()
    agent.__dict__[PRIVATE + "protocol"] = OverKafka() if ours else object()
    monkeypatch.setattr(bootstrap, "_take_over", lambda: agent.calls.append("taken over"))
    bootstrap.begin_threads()
    assert agent.calls == ([] if ours else ["taken over"])


@pytest.mark.parametrize("open_channel", [True, False])
def test_the_agents_own_connection_is_closed(
    agent: Agent, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, open_channel: bool
) -> None:
    ends = {
        "unsubscribe": lambda _self, callback: agent.calls.append(("unsubscribe", callback)),
        "close": lambda _self: agent.calls.append("close"),
    }
    channel: Any = type("Channel", (grpc.Channel,), {**dict.fromkeys(grpc.Channel.__abstractmethods__), **ends})
    monkeypatch.setattr(bootstrap.time, "sleep", agent.calls.append)
    monkeypatch.setattr(bootstrap.atexit, "unregister", lambda func: agent.calls.append(("unregister", func)))
    before = SimpleNamespace(channel=channel() if open_channel else "closed", _cb="callback")
    agent.__dict__[PRIVATE + "protocol"] = before
    settings.agent_protocol = "http"
    bootstrap._take_over()
    closed = [("unsubscribe", "callback"), bootstrap._WATCH_SECONDS, "close"] if open_channel else []
    assert agent.calls == [*closed, ("unregister", agent.has("fini"))]
    assert type(agent.has("protocol")) is OverHttp
    assert type(agent._finished) is bootstrap._SlowEvent


@pytest.mark.parametrize("running", [True, False])
def test_a_child_forgets_what_is_its_parents(
    agent: Agent, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    monkeypatch.setattr(bootstrap, "_take_over", lambda: agent.calls.append("taken over"))
    monkeypatch.setattr(bootstrap, "_make_services", lambda: agent.calls.append("services"))
    monkeypatch.setattr(bootstrap._runtime_meters, "forget", lambda: agent.calls.append("runtime"))
    protocol = OverHttp()
    monkeypatch.setattr(protocol, "close", lambda: agent.calls.append("close"))
    agent.__dict__[PRIVATE + "protocol"] = protocol
    agent.running, agent.started_pid = running, os.getpid() if running else 0
    bootstrap.forget_parent()
    assert settings.agent_instance_name == f"main-child({os.getpid()})"
    assert agent.calls == ["close", "runtime", "taken over" if running else "services"]
    assert agent.started_pid == os.getpid()
    assert agent.has("reporting") is (None if running else False)
    agent.__dict__[PRIVATE + "protocol"] = None
    bootstrap.forget_parent()


def test_the_agents_threads_look_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []
    monkeypatch.setattr(threading.Event, "wait", lambda _self, timeout=None: waited.append(timeout) or True)
    patience = bootstrap._SlowEvent()
    for timeout in (0.02, 20.0):
        assert patience.wait(timeout) is True
    patience.wait()
    assert waited == [1.0, 20.0, None]


def test_of_a_hundred_kinds_each_is_said_once_and_no_more() -> None:
    once = _Once()

    def said(error: BaseException) -> bool:
        return once.filter(logging.LogRecord("skywalking", logging.ERROR, "", 0, "", None, (type(error), error, None)))

    assert [said(ValueError(number)) for number in range(101)] == [True] * 100 + [False]
    assert not said(grpc.RpcError())


# How its threads talk to OAP.


class Post:
    """The HTTP transport: it notes what is posted."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.posted: list[Any] = []
        self.closed = False

    def post(self, path: str, body: Any) -> None:
        self.posted.append((path, body))

    def close(self) -> None:
        self.closed = True


def test_over_http_there_are_heartbeats_and_nothing_else(
    settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HttpTransport", Post)
    monkeypatch.setattr(heartbeat._HttpManagement, "get_instance_properties", lambda _self: ["one"])
    monkeypatch.setattr(heartbeat._HttpManagement, "refresh_instance_props", lambda _self: None)
    over: Any = OverHttp()
    for _ in range(2):
        over.heartbeat()
    who = {"service": "shop", "serviceInstance": "main"}
    alive = ("/v3/management/keepAlive", who)
    properties = ("/v3/management/reportProperties", {**who, "properties": ["one"]})
    assert over.transport.posted == [properties, alive, alive]
    assert over.transport.address == "127.0.0.1:9"
    for report in (over.report_segment, over.report_log, over.report_meter, over.report_snapshot):
        report(queue.Queue())
    over.query_profile_commands()
    over.notify_profile_task_finish(None)
    assert len(over.transport.posted) == 3
    over.close()
    assert over.transport.closed


def test_over_grpc_it_talks_through_our_channel(settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Channel(heartbeat.Channel):
        def __init__(self, address: str) -> None:
            super().__init__(address)
            made.append(address)

        def close(self) -> None:
            made.append("closed")

    monkeypatch.setattr(heartbeat, "Channel", Channel)
    over = OverGrpc()
    parts = (
        over.service_management,
        over.traces_reporter,
        over.profile_channel,
        over.log_reporter,
        over.meter_reporter,
    )
    assert [type(one).__name__ for one in parts] == [
        "GrpcServiceManagementClient", "GrpcTraceSegmentReportService", "GrpcProfileTaskChannelService",
        "GrpcLogDataReportService", "GrpcMeterReportService",
    ]  # fmt: skip
    assert (over.properties_sent, over.state) == (False, None)
    over.close()
    assert made == ["127.0.0.1:9", "closed"]


def test_over_kafka_the_agents_own_is_made_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class KafkaError(Exception):
        """As the package has it."""

    made: list[Any] = []

    class KafkaProtocol:
        def __init__(self) -> None:
            if not made:
                made.append("tried")
                raise KafkaError("nobody there")
            made.append("made")

        def heartbeat(self) -> None:
            made.append("heartbeat")

        def report_meter(self, *arguments: object) -> None:
            made.append(arguments)

    monkeypatch.setitem(sys.modules, "kafka", ModuleType("kafka"))
    monkeypatch.setitem(sys.modules, "kafka.errors", errors := ModuleType("kafka.errors"))
    monkeypatch.setitem(sys.modules, "skywalking.agent.protocol.kafka", its := ModuleType("kafka"))
    errors.KafkaError, its.KafkaProtocol = KafkaError, KafkaProtocol  # type: ignore[attr-defined]
    over = OverKafka()
    assert made == []
    with pytest.raises(UnreachableError, match=r"^nobody there$"):
        over.heartbeat()
    over.heartbeat()
    waiting: queue.Queue[Any] = queue.Queue()
    over.report_meter(waiting)
    over.report_meter(waiting, False)
    assert made == ["tried", "made", "heartbeat", (waiting, True), (waiting, False)]
