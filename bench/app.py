"""The service under test: one endpoint with one sleeping background task, traced as `BENCH_VARIANT` says."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import BackgroundTasks, FastAPI

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

VARIANT = os.environ["BENCH_VARIANT"]
running = peak = made = 0


def task_span() -> AbstractContextManager[Any]:
    """Open the span that a task has by hand, in the variant that has none by itself."""
    return nullcontext()


async def background_sleep_task(seconds: float) -> None:
    """Sleep, and count how many do."""
    global running, peak  # noqa: PLW0603  # one process, one count
    running += 1
    peak = max(peak, running)
    with task_span():
        await asyncio.sleep(seconds)
    running -= 1


async def test(background_tasks: BackgroundTasks, seconds: float) -> str:
    """Answer at once."""
    background_tasks.add_task(background_sleep_task, seconds)
    return "ok"


async def stats() -> dict[str, int]:
    """Say how many tasks run now, and how many did at the most."""
    return {"running": running, "peak": peak}


def count(spans: int) -> None:
    """Count the spans that were finished: all of them should arrive."""
    global made  # noqa: PLW0603  # one process, one count
    made += spans


def count_segments() -> None:
    """Count what the SkyWalking agent finishes, where it hands it to its reporter."""
    from skywalking.agent import agent  # noqa: PLC0415

    archive = agent.archive_segment

    def counting(segment: Any) -> None:  # noqa: ANN401  # the agent has no types
        count(len(segment.spans))
        archive(segment)

    agent.archive_segment = counting


def opentelemetry() -> None:
    """Set up OpenTelemetry as its documentation does: batches over OTLP."""
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    class Counter(SpanProcessor):
        def on_end(self, span: object) -> None:  # noqa: ARG002  # the name is OpenTelemetry's
            count(1)

    exporter = OTLPSpanExporter(os.environ["BENCH_SINK"], insecure=True)
    provider = TracerProvider(resource=Resource({"service.name": "bench"}))
    # The queue of the SkyWalking agent, so that neither drops for want of room.
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=10_000))
    provider.add_span_processor(Counter())
    trace.set_tracer_provider(provider)


def create_app() -> FastAPI:
    """Make the app in its variant."""
    global task_span  # noqa: PLW0603  # the variants differ in it
    options: dict[str, Any] = {}
    if VARIANT.startswith("opentelemetry"):
        opentelemetry()
        # FastAPI traces by itself as soon as a provider is there; the instrumentation would see everything twice.
        options["telemetry"] = {"tracing": False, "metrics": False, "logs": False}
    if VARIANT == "agent":
        from skywalking import agent, config  # noqa: PLC0415

        config.agent_logging_level = "ERROR"
        agent.start()
        count_segments()
    app = FastAPI(**options)
    app.get("/test")(test)
    app.get("/stats")(stats)
    if VARIANT.startswith("ours"):
        from skywalking_background import instrument  # noqa: PLC0415

        instrument(app)
        count_segments()
    if VARIANT.startswith("opentelemetry"):
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415

        FastAPIInstrumentor.instrument_app(app)
        tracer = trace.get_tracer("bench")
        task_span = lambda: tracer.start_as_current_span("background_sleep_task")  # noqa: E731
    if VARIANT.endswith("+gc"):
        gc.collect()
        gc.freeze()
        gc.set_threshold(2_000, 5, 1_000)  # what the demo service does
    return app


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has ended
    uvicorn.run(create_app(), host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), access_log=False, log_level="error")
    print(made, flush=True)
