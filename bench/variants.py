"""The peers, each set up as its own documentation says, and an app with one of them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import BackgroundTasks, FastAPI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Variant:
    """A row of the table, a colour of the picture."""

    label: str
    color: str
    setup: str
    """How it is set up, in words; printed below the table."""
    packages: tuple[str, ...] = ()
    baseline: str = "untraced"
    """What its overhead is counted from."""
    opentelemetry: bool = False
    """Whether it is OpenTelemetry: the cheapest of these is what the others are compared with."""


OPENTELEMETRY = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc")
EXPORT = "TracerProvider, BatchSpanProcessor as it is, OTLPSpanExporter (gRPC)"
COLLECTOR = "; gc.freeze(), gc.set_threshold(2_000, 5, 1_000)"

VARIANTS = {
    "untraced": Variant("untraced", "#8a8f98", "no tracing", ("fastapi", "starlette", "uvicorn")),
    "untraced+gc": Variant("untraced, collector tuned", "#c3c7cd", "no tracing" + COLLECTOR, baseline="untraced+gc"),
    "agent": Variant("SkyWalking's plugin", "#d98324", "agent.start()", ("apache-skywalking",)),
    "ours": Variant("this library", "#1f6fb4", "instrument(app)", ("skywalking-background",)),
    "ours+quiet": Variant("this library, no start reports", "#a9c4dd", "instrument(app), start reports and events off"),
    "ours+journal": Variant("this library, journal on", "#12456f", "instrument(app), SKYWALKING_BACKGROUND_JOURNAL"),
    "ours+gc": Variant(
        "this library, collector tuned", "#8fbbe0", "instrument(app)" + COLLECTOR, baseline="untraced+gc"
    ),
    "ours+unmetered": Variant(
        "this library, without meters", "#5b8fc0", "instrument(app), SKYWALKING_BACKGROUND_METERS=false"
    ),
    "fastapi": Variant(
        "FastAPI's own telemetry", "#2a9d74", f"on by default beside a {EXPORT}", OPENTELEMETRY, opentelemetry=True
    ),
    "contrib": Variant(
        "OpenTelemetry's instrumentation",
        "#6a4c93",
        f'FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"]), {EXPORT}; '
        "FastAPI's own telemetry off, as it would trace all a second time",
        ("opentelemetry-instrumentation-fastapi", *OPENTELEMETRY),
        opentelemetry=True,
    ),
}
"""Shades of one colour: with and without a tuned garbage collector."""


@dataclass
class Tally:
    """How many tasks run, how many did at most, how many spans were finished: all of them should arrive."""

    running: int = 0
    peak: int = 0
    spans: int = 0


tally = Tally()


async def background_sleep_task(seconds: float) -> None:
    """Sleep, and count how many do."""
    tally.running += 1
    tally.peak = max(tally.peak, tally.running)
    await asyncio.sleep(seconds)
    tally.running -= 1


async def test(background_tasks: BackgroundTasks, seconds: float) -> str:
    """Answer at once."""
    background_tasks.add_task(background_sleep_task, seconds)
    return "ok"


def create_app(name: str) -> FastAPI:
    """Make the app of a variant; spans go to the sink at `BENCH_SINK`."""
    peers: dict[str, Callable[[], FastAPI]]
    peers = {"untraced": _app, "agent": _agent, "ours": _ours, "fastapi": _fastapi, "contrib": _contrib}
    if name == "ours+quiet":
        os.environ["SKYWALKING_BACKGROUND_START_REPORT_SECONDS"] = "off"
        os.environ["SKYWALKING_BACKGROUND_EVENT_SECONDS"] = "off"
    if name == "ours+unmetered":
        os.environ["SKYWALKING_BACKGROUND_METERS"] = "false"
    if name == "ours+journal":
        os.environ["SKYWALKING_BACKGROUND_JOURNAL"] = tempfile.mkdtemp(prefix="bench-journal-")
    create = peers[name.partition("+")[0]]
    app = create()
    if name.endswith("+gc"):
        gc.collect()
        gc.freeze()
        gc.set_threshold(2_000, 5, 1_000)  # as the demo service does
    return app


def _app(**options: Any) -> FastAPI:  # noqa: ANN401  # FastAPI's own
    app = FastAPI(**options)
    app.get("/test")(test)
    return app


def _agent() -> FastAPI:
    from skywalking import agent, config  # noqa: PLC0415  # each variant loads what it needs, and no more

    config.agent_logging_level = "ERROR"  # it warns of each package that it could trace and that is not there
    agent.start()
    _count_segments()
    return _app()


def _ours() -> FastAPI:
    from skywalking_background import instrument  # noqa: PLC0415

    app = instrument(_app())
    _count_segments()
    return app


def _count_segments() -> None:
    """Count what the SkyWalking agent finishes, where it hands it to its reporter."""
    from skywalking.agent import agent  # noqa: PLC0415

    archive = agent.archive_segment

    def counting(segment: Any) -> None:  # noqa: ANN401  # the agent has no types
        tally.spans += len(segment.spans)
        archive(segment)

    agent.archive_segment = counting


def _fastapi() -> FastAPI:
    _provide()
    return _app()


def _contrib() -> FastAPI:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415

    _provide()
    app = _app(telemetry={"tracing": False, "metrics": False, "logs": False})
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["send", "receive"])
    return app


def _provide() -> None:
    """Set up OpenTelemetry's SDK as its documentation does."""
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    class Counter(SpanProcessor):
        def on_end(self, span: object) -> None:  # noqa: ARG002  # the name is OpenTelemetry's
            tally.spans += 1

    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(os.environ["BENCH_SINK"], insecure=True)))
    provider.add_span_processor(Counter())
    trace.set_tracer_provider(provider)


def deliver(name: str) -> Callable[[], object]:
    """Return what makes a variant deliver all that it has finished; the agent's plugin has nothing for that."""
    if name.startswith("ours"):
        from skywalking_background import flush  # noqa: PLC0415

        return flush
    if VARIANTS[name].opentelemetry:
        from opentelemetry import trace  # noqa: PLC0415

        provider: Any = trace.get_tracer_provider()
        flush_provider: Callable[[], object] = provider.force_flush
        return flush_provider
    return lambda: None


@contextmanager
def sink() -> Iterator[tuple[str, Callable[[], int]]]:
    """Run the sink in a process of its own; yield its address, and what asks how many spans have arrived."""
    command = [sys.executable, str(Path(__file__).with_name("sink.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None  # noqa: S101  # asked for above
        assert process.stdout is not None  # noqa: S101
        questions, answers = process.stdin, process.stdout

        def arrived() -> int:
            print(file=questions, flush=True)
            return int(answers.readline())

        if not (port := answers.readline().strip()):
            raise RuntimeError("the sink has ended, and says why above: what it imports, `make bench` installs")
        yield f"127.0.0.1:{port}", arrived
        questions.close()
