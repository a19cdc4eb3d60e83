"""Starlette's background tasks, with a span each."""

from __future__ import annotations

import functools

import anyio
from starlette.background import BackgroundTask, BackgroundTasks

from skywalking_background._spans import background_span, origin, span_name


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
        if len(errors) == 1:
            raise errors[0]
        if errors:
            message = f"{len(errors)} of {len(self.tasks)} background tasks failed"
            raise ExceptionGroup(message, errors)


def trace_background_tasks() -> None:
    """Give every `BackgroundTask` that a traced request runs a span of its own.

    Starlette has no hook around a task, and tasks reach it in three ways (FastAPI's parameter, `Response(background=)`,
    a collection): the one place that all of them pass is `BackgroundTask.__call__`.
    """
    untraced = BackgroundTask.__call__
    if hasattr(untraced, "__wrapped__"):
        return

    @functools.wraps(untraced)
    async def traced(task: BackgroundTask) -> None:
        if origin.get() is None:  # an app in this process that was not instrumented
            await untraced(task)
            return
        with background_span(span_name(task.func)):
            await untraced(task)

    BackgroundTask.__call__ = traced  # type: ignore[method-assign,assignment]
