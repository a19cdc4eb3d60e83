"""Each background task has one span, whatever class it is of and whatever others have wrapped around it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from skywalking.trace.context import get_context
from skywalking_background import ParallelTasks, _tasks, background_span, current_trace_id, instrument
from skywalking_background._internals import open_spans
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import run_in_threadpool
from trees import find, get, names, outline, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Segments = list[Any]


@pytest.fixture
def untouched() -> Iterator[None]:
    """Let `BackgroundTask` be as Starlette made it; afterwards as the other tests have it."""
    before = BackgroundTask.__call__, set(_tasks._traced), BackgroundTask.__dict__.get("__init_subclass__")
    BackgroundTask.__call__ = inspect.unwrap(BackgroundTask.__call__)  # type: ignore[method-assign]
    _tasks._traced.discard(BackgroundTask)
    if before[2] is not None:
        del BackgroundTask.__init_subclass__
    yield
    BackgroundTask.__call__ = before[0]  # type: ignore[method-assign]
    _tasks._traced.clear()
    _tasks._traced.update(before[1])
    if before[2] is not None:
        BackgroundTask.__init_subclass__ = before[2]  # type: ignore[assignment]


ran: list[str] = []


async def work(name: str = "work") -> None:
    with get_context().new_exit_span("/x", "peer:80"):
        ran.append(name)


async def run(task: Callable[[], BackgroundTask], *, traced: bool = True) -> None:
    """Let a response carry the task, and check that it ran once."""
    ran.clear()
    app = FastAPI()

    @app.get("/")
    async def root() -> Any:
        return PlainTextResponse("", background=task())

    await get(instrument(app) if traced else app, "/")
    assert ran == ["work"]


def whole(name: str) -> str:
    return tree(f"""
        Entry HTTP GET /
          Local FastAPI request handling
          Local {name} CROSS_THREAD
            Exit /x""")


def wrap() -> list[str]:
    """Wrap a library's own function around every task, with what the standard library has for it."""
    seen: list[str] = []
    original = BackgroundTask.__call__

    @functools.wraps(original)
    async def wrapper(task: BackgroundTask) -> None:
        seen.append("called")
        await original(task)

    BackgroundTask.__call__ = wrapper  # type: ignore[assignment, method-assign]
    return seen


class FunctionWrapper:
    """What wrapt puts in a function's place: a descriptor that passes every attribute on to the function."""

    def __init__(self, wrapped: Any, wrapper: Callable[..., Any], instance: Any = None) -> None:
        self.__dict__.update(__wrapped__=wrapped, _wrapper=wrapper, _instance=instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __get__(self, instance: Any, owner: Any = None) -> FunctionWrapper:
        bound = self.__wrapped__.__get__(instance, owner)
        return FunctionWrapper(bound, self._wrapper, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        instance, rest = (self._instance, args) if self._instance is not None else (args[0], args[1:])
        bound = self.__wrapped__ if self._instance is not None else self.__wrapped__.__get__(instance)
        return self._wrapper(bound, instance, rest, kwargs)


def wrap_as_wrapt_does() -> list[str]:
    seen: list[str] = []

    async def wrapper(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append("called")
        return await wrapped(*args, **kwargs)

    BackgroundTask.__call__ = FunctionWrapper(BackgroundTask.__call__, wrapper)  # type: ignore[method-assign, assignment]
    return seen


def wrap_as_opentelemetry_does() -> list[str]:
    seen: list[str] = []
    if not hasattr(BackgroundTask, "_otel_original_call"):
        BackgroundTask._otel_original_call = BackgroundTask.__call__  # type: ignore[attr-defined]

        async def traced_call(task: BackgroundTask) -> Any:
            seen.append("called")
            return await BackgroundTask._otel_original_call(task)  # type: ignore[attr-defined]

        BackgroundTask.__call__ = traced_call  # type: ignore[assignment, method-assign]
    return seen


WRAPS = [wrap, wrap_as_wrapt_does, wrap_as_opentelemetry_does]


@pytest.fixture
def without_opentelemetry() -> Iterator[None]:
    """Leave no trace of its wrapper."""
    yield
    if hasattr(BackgroundTask, "_otel_original_call"):
        del BackgroundTask._otel_original_call


@pytest.mark.usefixtures("untouched", "without_opentelemetry")
@pytest.mark.parametrize("wrapping", WRAPS)
@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_beside_another_librarys_wrapper(
    segments: Segments, wrapping: Callable[[], list[str]], first: str
) -> None:
    if first == "theirs":
        seen = wrapping()
        instrument(FastAPI())
    else:
        instrument(FastAPI())
        seen = wrapping()
    await run(lambda: BackgroundTask(work))
    assert outline(segments) == whole("work")
    assert seen == ["called"]


@pytest.mark.usefixtures("untouched", "without_opentelemetry")
async def test_between_two_other_libraries(segments: Segments) -> None:
    seen = [wrap(), wrap_as_opentelemetry_does()]
    instrument(FastAPI())
    seen.append(wrap_as_wrapt_does())
    await run(lambda: BackgroundTask(work))
    assert outline(segments) == whole("work")
    assert seen == [["called"], ["called"], ["called"]]


async def test_an_app_that_is_instrumented_twice_has_one_span_a_task(segments: Segments) -> None:
    app = instrument(instrument(FastAPI()))

    @app.get("/")
    async def root() -> Any:
        return PlainTextResponse("", background=BackgroundTask(work))

    await get(app, "/")
    assert outline(segments) == whole("work")


# Subclasses.


class Plain(BackgroundTask):
    """Nothing of its own."""


class Own(BackgroundTask):
    """A `__call__` of its own."""

    async def __call__(self) -> None:
        await self.func(*self.args, **self.kwargs)


class WithSuper(BackgroundTask):
    """Calls that of its base."""

    async def __call__(self) -> None:
        await super().__call__()


class Slotted(BackgroundTask):
    """Takes no attribute that is not named."""

    __slots__ = ("args", "func", "is_async", "kwargs")

    async def __call__(self) -> None:
        await super().__call__()


class Strict(BackgroundTask):
    """Takes no attribute at all after it was made."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in {"func", "args", "kwargs", "is_async"}:
            raise AttributeError(name)
        super().__setattr__(name, value)

    async def __call__(self) -> None:
        await super().__call__()


@dataclass(frozen=True)
class Frozen(BackgroundTask):
    """A dataclass that knows its function by another name."""

    name: str = "work"
    seen: list[str] = field(default_factory=list)

    async def __call__(self) -> None:
        await work(self.name)


class Grandchild(WithSuper):
    """Two levels of `super()`."""

    async def __call__(self) -> None:
        await super().__call__()


class Repeating(BackgroundTask):
    """Calls its base as often as it likes."""

    async def __call__(self) -> None:
        with background_span("attempt"):
            await super().__call__()


KINDS: list[tuple[Callable[[], BackgroundTask], str]] = [
    (lambda: Plain(work), "work"),
    (lambda: Own(work), "work"),
    (lambda: WithSuper(work), "work"),
    (lambda: Slotted(work), "work"),
    (lambda: Strict(work), "work"),
    (lambda: Grandchild(work), "work"),
    (Frozen, "Frozen"),
    (lambda: Own(lambda: work("work")), "Own"),
    (lambda: BackgroundTask(lambda: asyncio.run(work())), "<lambda>.<lambda>"),
]


@pytest.mark.parametrize(("task", "name"), KINDS)
async def test_a_subclass_that_was_there_before(
    segments: Segments, task: Callable[[], BackgroundTask], name: str
) -> None:
    await run(task)
    assert sorted(outline(segments).splitlines()) == sorted(whole(name).splitlines())


async def test_a_subclass_that_comes_later(segments: Segments) -> None:
    app = instrument(FastAPI())
    asked: list[str] = []

    @app.get("/{name}")
    async def root(name: str) -> Any:
        class Later(BackgroundTask):
            def __init_subclass__(cls, marker: str = "", **kwargs: Any) -> None:
                super().__init_subclass__(**kwargs)
                asked.append(marker)

            async def __call__(self) -> None:
                await self.func()  # type: ignore[call-arg]

        class Below(Later, marker="y"):
            async def __call__(self) -> None:
                await super().__call__()

        return PlainTextResponse("", background={"later": Later, "below": Below}[name](work))

    for name in ("later", "below"):
        segments.clear()
        await get(app, f"/{name}")
        assert outline(segments) == whole("work").replace("GET /", "GET /{name}")
    assert asked == ["y", "y"]  # as Python calls it: for subclasses only


async def test_what_a_subclass_returns_is_passed_on(segments: Segments) -> None:
    class Returning(BackgroundTask):
        async def __call__(self) -> int:  # type: ignore[override]
            return 7

    instrument(FastAPI())
    with background_span("around"):
        assert await Returning(work)() == 7  # type: ignore[func-returns-value]
    assert names(segments) == ["work", "around"]


async def test_a_subclass_that_fails_is_told_once(segments: Segments) -> None:
    async def fail() -> None:
        raise KeyError("mine")

    instrument(FastAPI())
    with background_span("around"), pytest.raises(KeyError):
        await Grandchild(fail)()
    span = find(segments, "fail")
    assert span.error_occurred
    assert len(span.logs) == 1


async def test_a_task_may_run_a_second_time(segments: Segments) -> None:
    instrument(FastAPI())
    task = WithSuper(work)
    with background_span("around"):
        await task()
        await task()
        await asyncio.gather(task(), task())
    assert names(segments).count("work") == 4


async def test_a_task_within_another_has_its_own_span(segments: Segments) -> None:
    class Outer(BackgroundTask):
        async def __call__(self) -> None:
            await WithSuper(work)()
            await super().__call__()

    async def own() -> None: ...

    instrument(FastAPI())
    with background_span("around"):
        await Outer(own)()
    assert outline(segments) == tree("""
        Local around
          Local own
            Local work
              Exit /x""")


async def test_attempts_within_a_task_lie_below_it(segments: Segments) -> None:
    await run(lambda: Repeating(work))
    assert outline(segments) == tree("""
        Entry HTTP GET /
          Local FastAPI request handling
          Local work CROSS_THREAD
            Local attempt
              Exit /x""")


def cpu(*_: Any) -> None: ...


async def name_of(task: BackgroundTask, segments: Segments) -> Any:
    segments.clear()
    with background_span("around"):
        await task()
    return names(segments)[0]


async def test_a_task_is_named_after_what_it_runs(segments: Segments) -> None:
    class Silent(BackgroundTask):
        """Has neither function nor arguments."""

        def __init__(self) -> None: ...

        async def __call__(self) -> None: ...

    class Half(Silent):
        """Has a function only."""

        func = functools.partial(cpu, 1)

        async def __call__(self) -> None: ...

    instrument(FastAPI())
    assert await name_of(BackgroundTask(run_in_threadpool, cpu, 1), segments) == "cpu"
    assert await name_of(Silent(), segments) == "Silent"
    assert await name_of(Half(), segments) == "cpu"
    assert await name_of(Own(lambda: asyncio.sleep(0)), segments) == "Own"

    class Local(BackgroundTask):
        async def __call__(self) -> None: ...

    assert await name_of(Local(lambda: None), segments) == "Local"


async def test_a_subclass_may_have_other_bases(segments: Segments) -> None:
    asked: list[Any] = []

    class Marked:
        def __init_subclass__(cls, marker: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            asked.append((cls.__name__, marker))

    instrument(FastAPI())

    class Both(BackgroundTask, Marked, marker="x"):
        async def __call__(self) -> None: ...

    assert asked == [("Both", "x")]
    assert await name_of(Both(work), segments) == "work"


# Collections.


async def test_the_tasks_of_a_collection_have_a_span_each_and_it_has_none(segments: Segments) -> None:
    async def other() -> None: ...

    class Collection(BackgroundTasks):
        async def __call__(self) -> None:
            await super().__call__()

    for collection in (BackgroundTasks, ParallelTasks, Collection):
        segments.clear()
        await run(lambda kind=collection: kind([BackgroundTask(work), BackgroundTask(other)]))  # type: ignore[misc]
        assert outline(segments) == tree("""
            Entry HTTP GET /
              Local FastAPI request handling
              Local other CROSS_THREAD
              Local work CROSS_THREAD
                Exit /x""")


async def test_parallel_tasks_run_side_by_side() -> None:
    met: list[str] = []
    barrier = asyncio.Event()

    async def first() -> None:
        await asyncio.wait_for(barrier.wait(), 5)
        met.append("first")

    async def second() -> None:
        barrier.set()
        met.append("second")

    await ParallelTasks([BackgroundTask(first), BackgroundTask(second)])()
    assert met == ["second", "first"]


async def test_one_failure_of_parallel_tasks_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    ran.clear()
    with pytest.raises(KeyError, match="mine"):
        await ParallelTasks([BackgroundTask(fail), BackgroundTask(work)])()
    assert ran == ["work"]


async def test_an_error_of_a_library_stops_none_of_the_others() -> None:
    class Stop(BaseException):
        """Not derived from `Exception`."""

    async def fail() -> None:
        raise Stop

    ran.clear()
    with pytest.raises(BaseExceptionGroup) as raised:
        await ParallelTasks([BackgroundTask(fail), BackgroundTask(fail), BackgroundTask(work)])()
    assert [type(one) for one in raised.value.exceptions] == [Stop, Stop]
    assert ran == ["work"]


async def test_parallel_tasks_that_are_cancelled_are(segments: Segments) -> None:
    running = asyncio.create_task(ParallelTasks([BackgroundTask(asyncio.sleep, 60)])())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_no_parallel_tasks_at_all() -> None:
    await ParallelTasks()()


# What is none of ours.


async def test_tasks_of_an_app_that_is_not_instrumented_are_left_alone(segments: Segments) -> None:
    instrument(FastAPI())
    for kind in (BackgroundTask, Own, WithSuper):
        await run(lambda kind=kind: kind(work), traced=False)  # type: ignore[misc]
    assert "work" not in names(segments)
    assert open_spans() == []


async def test_after_a_task_its_caller_is_where_it_was(segments: Segments) -> None:
    async def fail() -> None:
        raise KeyError("mine")

    instrument(FastAPI())
    with background_span("around"):
        before, around = current_trace_id(), open_spans()[-1]
        await BackgroundTask(work)()
        assert open_spans()[-1] is around
        with pytest.raises(KeyError):
            await BackgroundTask(fail)()
        assert (current_trace_id(), open_spans()[-1]) == (before, around)
