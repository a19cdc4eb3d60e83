"""The agent in a process: started by us in two steps, or found running. Each in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys

from skywalking_background._failures import UnreachableError
from skywalking_background._internals.bootstrap import _Once


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
