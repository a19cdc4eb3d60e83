"""Starlette's background tasks, with a span each."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import anyio
from starlette.background import BackgroundTask, BackgroundTasks

from skywalking_background import _meters
from skywalking_background._faults import is_order
from skywalking_background._internals import open_spans
from skywalking_background._names import span_name
from skywalking_background._spans import enter, keep, leave

if TYPE_CHECKING:
    from collections.abc import Callable

_running: Final[ContextVar[int]] = ContextVar("running", default=0)
"""The `id` of the task of a subclass that runs in this context: it may call the `__call__` of its base."""

_traced: Final[set[type[BackgroundTask]]] = set()
"""The classes that have our `__call__`: each once, whatever other libraries wrap around it."""


class ParallelTasks(BackgroundTasks):
    """Background tasks of one response that run side by side.

    Starlette's own `BackgroundTasks` runs them one after the other, and the first failure drops the rest. Here all run
    to their end; what failed is raised afterwards, several failures as an `ExceptionGroup`.
    """

    async def __call__(self) -> None:
        errors: list[BaseException] = []

        async def run(task: BackgroundTask) -> None:
            try:
                await task()
            except BaseException as error:
                if is_order(error):
                    raise
                errors.append(error)  # whatever it is, the other tasks go on

        async with anyio.create_task_group() as group:
            for task in self.tasks:
                group.start_soon(run, task)
        try:
            if len(errors) == 1:
                raise errors[0]
            if errors:
                message = f"{len(errors)} of {len(self.tasks)} background tasks failed"
                raise BaseExceptionGroup(message, errors)  # an `ExceptionGroup` if each is an `Exception`
        finally:
            errors.clear()  # else each error refers to this frame, and the frame to the error


def trace_background_tasks() -> None:
    """Give every `BackgroundTask` that a traced request runs a span of its own.

    Starlette has no hook around a task, and tasks reach it in three ways (FastAPI's parameter, `Response(background=)`,
    a collection): the one place that all of them pass is `BackgroundTask.__call__`, or that of a subclass.
    Collections are left alone: each of their tasks has its span.
    """
    _trace_class(BackgroundTask)
    for subclass in _subclasses(BackgroundTask):
        _trace_class(subclass)
    if "__init_subclass__" not in BackgroundTask.__dict__:
        BackgroundTask.__init_subclass__ = classmethod(_trace_subclass)  # type: ignore[assignment]


def _trace_subclass(kind: type[BackgroundTask], /, **kwargs: Any) -> None:  # noqa: ANN401
    super(BackgroundTask, kind).__init_subclass__(**kwargs)
    _trace_class(kind)


def _subclasses(kind: type[BackgroundTask]) -> list[type[BackgroundTask]]:
    found = list(kind.__subclasses__())
    return found + [below for one in found for below in _subclasses(one)]


def _trace_class(kind: type[BackgroundTask]) -> None:
    if kind in _traced or "__call__" not in kind.__dict__ or issubclass(kind, BackgroundTasks):
        return
    _traced.add(kind)
    untraced: Callable[[Any], Any] = kind.__call__

    @functools.wraps(untraced)
    async def traced(task: BackgroundTask) -> Any:  # noqa: ANN401  # a subclass may return something
        # In no request of ours; or within this very task, where a subclass calls its base.
        around = _running.get()
        spans = open_spans()
        if not spans or around == id(task):
            return await untraced(task)
        outer = keep(spans)
        span = enter(_task_name(task), spans)
        _meters.queued_since(span, outer)
        del spans  # what `keep` kept will do
        if type(task) is not BackgroundTask:
            _running.set(id(task))
        try:
            result = await untraced(task)
        except BaseException as error:
            leave(span, outer, error)
            raise
        else:
            leave(span, outer, None)
            return result
        finally:
            if type(task) is not BackgroundTask:
                _running.set(around)

    kind.__call__ = traced  # type: ignore[assignment, method-assign]


def _task_name(task: BackgroundTask) -> str:
    func = getattr(task, "func", None)
    if func is None:
        return type(task).__qualname__.rpartition("<locals>.")[2]
    name = span_name(func, getattr(task, "args", ()))
    if name.endswith("<lambda>") and type(task) is not BackgroundTask:
        return type(task).__qualname__.rpartition("<locals>.")[2]  # says more than a lambda
    return name
