"""Names of endpoints and of tasks: a few that tell, never one for each value."""

from __future__ import annotations

import functools
import inspect
import os
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Mount, Route, WebSocketRoute

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Scope

TASK_PREFIX: Final = os.environ.get("SKYWALKING_BACKGROUND_TASK_PREFIX", "")
"""What the name of each task begins with, so that SkyWalking's list of endpoints sorts and finds tasks by it."""

# One name for whatever no route matched: a scanner must not fill SkyWalking with an endpoint per guess.
UNMATCHED: Final = "(unmatched)"

MOUNTS: Final = "skywalking_background.mounts"
"""In a traced request's scope: the templates of the mounts that it went through. One key, as a scope's dictionary
stays for as long as the request's tasks run, and more of them double its memory."""

OUTER_MOUNTS: Final = "skywalking_background.outer_mounts"
"""Those of an app around, which is not traced itself."""

_ROUTE: Final = "skywalking_background.route"


def note_routes() -> None:
    """Let each route and mount that serves a request write itself into the request's scope.

    Starlette keeps of a mount only what its template matched, and before 1.0 it did not keep the route either.
    """
    for kind, noting in ((Mount, _note_mount), (Route, _note_route), (WebSocketRoute, _note_route)):
        if not hasattr(kind.handle, "_skywalking_background"):
            kind.handle = _noting(kind.handle, noting)  # type: ignore[method-assign]


def _noting(handle: Callable[..., Any], note: Callable[[Any, Scope], None]) -> Callable[..., Any]:
    @functools.wraps(handle)
    def noting(self: Any, scope: Scope, *rest: Any, **more: Any) -> Any:  # noqa: ANN401  # no coroutine of its own
        note(self, scope)
        return handle(self, scope, *rest, **more)

    noting._skywalking_background = True  # type: ignore[attr-defined]  # noqa: SLF001
    return noting


def _note_mount(mount: Mount, scope: Scope) -> None:
    key = MOUNTS if MOUNTS in scope else OUTER_MOUNTS
    scope[key] = scope.get(key, "") + (_included_path(mount, scope) or mount.path)


def _note_route(route: Route | WebSocketRoute, scope: Scope) -> None:
    if "route" not in scope:
        scope[_ROUTE] = route


def _included_path(route: object, scope: Scope) -> str | None:
    """Return the template with the prefix of `include_router`, which FastAPI's newer releases keep beside the route."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    if context is None or context.original_route is not route:
        return None
    return getattr(context.starlette_route, "path", None) or getattr(context, "path", None)


def route_template(scope: Scope) -> str:
    """Return the template of the matched route with its prefixes, such as `/tasks/{task_id}`."""
    mounts: str = scope.get(MOUNTS, "")
    route = scope.get("route") or scope.get(_ROUTE)
    if route is None or isinstance(route, Mount):
        # Below a mount: an app that is not Starlette's, or no route of a sub-app.
        return f"{mounts}/{{path}}" if mounts else UNMATCHED
    path = _included_path(route, scope) or getattr(route, "path", None)
    return mounts + path if isinstance(path, str) else UNMATCHED


def route_path(scope: Scope) -> str:
    """Return the path without the prefix under which a proxy or `--root-path` puts the app, as routes match it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    rest = path.removeprefix(root)
    return rest if root and rest.startswith("/") else path


# Their first argument (of `run_in_executor` the second) is what runs.
_RUNNERS: Final = {
    ("starlette.concurrency", "run_in_threadpool"): 0,
    ("asyncio.threads", "to_thread"): 0,
    ("anyio.to_thread", "run_sync"): 0,
    ("asyncio.base_events", "BaseEventLoop.run_in_executor"): 1,
}

_RUNNERS_MODULES: Final = {module for module, _ in _RUNNERS}


def task_name(name: str) -> str:
    """Name a task's endpoint, which is the first span of its segment."""
    return f"{TASK_PREFIX}{name}" if TASK_PREFIX else name


def span_name(func: Callable[..., Any], args: tuple[Any, ...] = ()) -> str:
    """Name a span after what runs: `resize`, `Mailer.send`; the class for a callable object.

    Args:
        func: a function; also a partial one, or one wrapped by a decorator that does not say what it wraps.
        args: what it will be called with: `run_in_threadpool` and its like are named after the function they run.
    """
    try:
        if type(func) is FunctionType and func.__closure__ is None and func.__module__ not in _RUNNERS_MODULES:
            name = func.__qualname__
            if "." not in name:  # nearly all
                return name
        return _span_name(func, args)
    except Exception:  # noqa: BLE001  # an object that answers anything with an error
        return type(func).__qualname__


def _span_name(func: Any, args: tuple[Any, ...]) -> str:  # noqa: ANN401
    for _ in range(20):  # as deep as people wrap
        if isinstance(func, functools.partial):
            func, args = func.func, (*func.args, *args)
            continue
        module, name = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
        at = _RUNNERS.get((module, name))  # type: ignore[arg-type]
        if at is not None and len(args) > at and callable(args[at]):
            func, args = args[at], args[at + 1 :]
        elif (inner := _wrapped(func)) is not None:
            func = inner
        else:
            break
    name = getattr(func, "__qualname__", None)
    if not isinstance(name, str) or not name:
        name = type(func).__qualname__
    outer, _, inner_name = name.rpartition(".<locals>.")
    if inner_name == "<lambda>" and outer:
        return f"{outer.rpartition('.')[2]}.<lambda>"  # after the function that it stands in
    return inner_name


def _wrapped(func: Any) -> Any:  # noqa: ANN401
    """Return what a decorator's inner function calls: it takes whatever comes, and one function is all it knows."""
    code = getattr(func, "__code__", None)
    if not inspect.isfunction(func) or code is None or "<locals>" not in func.__qualname__:
        return None
    if not code.co_flags & inspect.CO_VARARGS or hasattr(func, "__wrapped__"):
        return None
    known = [cell.cell_contents for cell in func.__closure__ or () if _filled(cell)]
    functions = [one for one in known if inspect.isroutine(one) or isinstance(one, functools.partial)]
    return functions[0] if len(functions) == 1 else None


def _filled(cell: Any) -> bool:  # noqa: ANN401
    try:
        return cell.cell_contents is not None
    except ValueError:  # nothing was ever put in
        return False
