"""Starlette's background tasks, with a span each."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import anyio
from starlette.background import BackgroundTask, BackgroundTasks

from skywalking_background._internals import open_spans
from skywalking_background._names import span_name
from skywalking_background._spans import background_span

if TYPE_CHECKING:
    from collections.abc import Callable

_OURS: Final = "_skywalking_background"
_RUNNING: Final = "_skywalking_background_running"


class ParallelTasks(BackgroundTasks):
    """Background tasks of one response that run side by side.

    Starlette's own `BackgroundTasks` runs them one after the other, and the first failure drops the rest. Here all run
    to their end; what failed is raised afterwards, several failures as an `ExceptionGroup`.
    """

    async def __call__(self) -> None:
        errors: list[Exception] = []

        async def run(task: BackgroundTask) -> None:
            try:
                await task()
            except Exception as error:  # noqa: BLE001  # whatever it is, the other tasks go on
                errors.append(error)

        async with anyio.create_task_group() as group:
            for task in self.tasks:
                group.start_soon(run, task)
        try:
            if len(errors) == 1:
                raise errors[0]
            if errors:
                message = f"{len(errors)} of {len(self.tasks)} background tasks failed"
                raise ExceptionGroup(message, errors)
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
    if _OURS not in BackgroundTask.__dict__:
        setattr(BackgroundTask, _OURS, True)
        before = BackgroundTask.__dict__.get("__init_subclass__")

        def trace_subclass(cls: type[BackgroundTask], **kwargs: Any) -> None:  # noqa: ANN401
            if before is not None:
                before.__get__(None, cls)(**kwargs)
            else:
                super(BackgroundTask, cls).__init_subclass__(**kwargs)
            _trace_class(cls)

        BackgroundTask.__init_subclass__ = classmethod(trace_subclass)  # type: ignore[assignment]


def _subclasses(kind: type[BackgroundTask]) -> list[type[BackgroundTask]]:
    found = list(kind.__subclasses__())
    return found + [below for one in found for below in _subclasses(one)]


def _trace_class(kind: type[BackgroundTask]) -> None:
    untraced = kind.__dict__.get("__call__")
    if untraced is None or issubclass(kind, BackgroundTasks) or _is_traced(untraced):
        return
    kind.__call__ = _traced(kind.__call__)  # type: ignore[method-assign]


def _is_traced(call: Any) -> bool:  # noqa: ANN401
    """Look for ours below what other libraries wrapped around it since."""
    while call is not None:
        if _OURS in getattr(call, "__dict__", {}):
            return True
        call = getattr(call, "__wrapped__", None)
    return False


def _traced(untraced: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(untraced)
    async def traced(task: BackgroundTask) -> Any:  # noqa: ANN401  # a subclass may return something
        state = task.__dict__ if hasattr(task, "__dict__") else {}
        # In no request of ours; or within this very task, where a subclass calls its base.
        if _RUNNING in state or not open_spans():
            return await untraced(task)
        state[_RUNNING] = True
        try:
            with background_span(_task_name(task)):
                return await untraced(task)
        finally:
            state.pop(_RUNNING, None)

    setattr(traced, _OURS, True)
    return traced


def _task_name(task: BackgroundTask) -> str:
    func = getattr(task, "func", None)
    if func is None:
        return type(task).__qualname__.rpartition("<locals>.")[2]
    name = span_name(func, getattr(task, "args", ()))
    if name.endswith("<lambda>") and type(task) is not BackgroundTask:
        return type(task).__qualname__.rpartition("<locals>.")[2]  # says more than a lambda
    return name
