"""Names come from the routes that matched and from the functions that run: a few, never one for each value."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock

import anyio.to_thread
import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket  # FastAPI reads annotations at run time
from fastapi.responses import PlainTextResponse
from skywalking import config
from skywalking_background import instrument
from skywalking_background._instrument import Middleware
from skywalking_background._names import UNMATCHED, note_routes, route_path, route_template, span_name
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from trees import get, names

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

Segments = list[Any]


async def ok(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def name_of(app: Any, segments: Segments, path: str, method: str = "GET", **headers: str) -> str:
    """Return the name that a request gets, without its method."""
    segments.clear()
    await get(app, path, method, **headers)
    name = names(segments)[-1]
    assert name.startswith(f"HTTP {method} ")
    return name.removeprefix(f"HTTP {method} ")


async def raw_app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def app(segments: Segments) -> Any:
    """Put routes into each other in every way."""
    sub = FastAPI()
    sub.get("/orders/{order}")(ok)
    sub.get("/{anything}")(ok)
    inner = FastAPI()
    inner.get("/things/{thing}")(ok)
    sub.mount("/in/{inner}", inner)
    legacy = FastAPI(root_path="/legacy")
    legacy.get("/old/{x}")(ok)
    hosted = FastAPI()
    hosted.get("/who/{name}")(ok)
    deep = APIRouter(prefix="/deep/{level}")
    deep.get("/{leaf}")(ok)
    router = APIRouter(prefix="/v1")
    router.get("/items/{item}")(ok)
    router.include_router(deep, prefix="/more")
    classic = Starlette(
        routes=[
            Route("/stars/{star}", ok),
            Mount("/group", routes=[Route("/{member}", ok)]),
            Route("/same", ok),
            Route("/same/{again}", ok),
        ]
    )
    found = FastAPI()
    found.get("/")(ok)
    found.get("/items/{item}")(ok)
    found.get("/two/{one}/{other}")(ok)
    found.get("/gr\u00f6\u00dfe/{n}")(ok)
    found.get("/path/{rest:path}")(ok)
    found.get("/first")(ok)
    found.get("/second")(ok)
    found.include_router(router, prefix="/api")
    found.mount("/t/{tenant}", sub)
    found.mount("/legacy", legacy)
    found.mount("/classic", classic)
    found.mount("/raw", raw_app)
    found.router.routes.insert(0, Host("api.example.org", hosted))
    return instrument(found)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "/"),
        ("/items/7", "/items/{item}"),
        ("/items/items", "/items/{item}"),
        ("/two/a/a", "/two/{one}/{other}"),
        ("/two/two/{one}", "/two/{one}/{other}"),
        ("/gr%C3%B6%C3%9Fe/1", "/gr\u00f6\u00dfe/{n}"),
        ("/path/a/b/c", "/path/{rest:path}"),
        ("/first", "/first"),
        ("/second", "/second"),
        ("/api/v1/items/v1", "/api/v1/items/{item}"),
        ("/api/v1/more/deep/1/2", "/api/v1/more/deep/{level}/{leaf}"),
        ("/t/acme/orders/9", "/t/{tenant}/orders/{order}"),
        ("/t/orders/orders/9", "/t/{tenant}/orders/{order}"),
        ("/t/9/orders/9", "/t/{tenant}/orders/{order}"),
        ("/t/t/orders/orders", "/t/{tenant}/orders/{order}"),
        ("/t/acme/acme", "/t/{tenant}/{anything}"),
        ("/t/a/in/a/things/a", "/t/{tenant}/in/{inner}/things/{thing}"),
        ("/t/in/in/in/things/things", "/t/{tenant}/in/{inner}/things/{thing}"),
        ("/legacy/old/legacy", "/legacy/old/{x}"),
        ("/classic/stars/stars", "/classic/stars/{star}"),
        ("/classic/group/group", "/classic/group/{member}"),
        ("/classic/same", "/classic/same"),
        ("/classic/same/same", "/classic/same/{again}"),
        ("/raw/whatever/it/is", "/raw/{path}"),
    ],
)
async def test_an_endpoint_is_named_by_the_routes_that_matched(
    app: Any, segments: Segments, path: str, name: str
) -> None:
    assert (await get(app, path)).text == "ok"
    assert await name_of(app, segments, path) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/nothing", UNMATCHED),
        ("/items", UNMATCHED),
        ("/t/acme/no/such", "/t/{tenant}/{path}"),
        ("/t/a/in/b/no", "/t/{tenant}/in/{inner}/{path}"),
        ("/classic/nothing", "/classic/{path}"),
        ("/classic/group/a/b", "/classic/group/{path}"),
    ],
)
async def test_what_nothing_matched_has_one_name_for_all(app: Any, segments: Segments, path: str, name: str) -> None:
    assert await name_of(app, segments, path) == name


@pytest.mark.parametrize(
    ("path", "name"), [("/items/7", "/items/{item}"), ("/t/a/orders/a", "/t/{tenant}/orders/{order}")]
)
async def test_a_wrong_method_has_the_routes_name(app: Any, segments: Segments, path: str, name: str) -> None:
    assert await name_of(app, segments, path, "DELETE") == name


async def test_a_host_has_routes_of_its_own(app: Any, segments: Segments) -> None:
    assert await name_of(app, segments, "/who/who", host="api.example.org") == "/who/{name}"
    assert await name_of(app, segments, "/who/who") == UNMATCHED


async def test_an_app_that_is_not_traced_around_one_that_is_has_its_mount_in_the_name(segments: Segments) -> None:
    inner, outer = instrument(FastAPI()), FastAPI()
    sub = FastAPI()
    sub.get("/{x}")(ok)
    inner.mount("/sub/{s}", sub)
    outer.mount("/inner/{i}", inner)
    assert await name_of(outer, segments, "/inner/a/sub/a/a") == "/inner/{i}/sub/{s}/{x}"


async def test_classes_and_files_are_endpoints_too(segments: Segments, tmp_path: Path) -> None:
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Any) -> PlainTextResponse:
            return await ok(request)

    (tmp_path / "page.txt").write_text("hello")
    files = Mount("/files", StaticFiles(directory=tmp_path))
    router = Router([Route("/{x}", ok)])
    app = instrument(Starlette(routes=[Route("/class/{x}", Endpoint), files, Mount("/router/{y}", router)]))
    assert await name_of(app, segments, "/class/7") == "/class/{x}"
    assert await name_of(app, segments, "/files/page.txt") == "/files/{path}"
    assert await name_of(app, segments, "/router/a/a") == "/router/{y}/{x}"


async def test_one_function_on_two_routes_is_two_endpoints(segments: Segments) -> None:
    router = APIRouter()
    router.get("/a/{x}")(ok)
    router.get("/b/{x}")(ok)
    app = FastAPI()
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    instrument(app)
    paths = ["/one/a/1", "/one/b/1", "/two/a/1", "/two/b/1"]
    assert [await name_of(app, segments, path) for path in paths] == [path.replace("1", "{x}") for path in paths]


def test_a_websocket_has_its_routes_name(segments: Segments) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    router = APIRouter(prefix="/v1")
    router.websocket("/rooms/{room}")(endpoint)
    app = FastAPI()
    app.include_router(router)
    app.mount("/sub/{s}", Starlette(routes=[WebSocketRoute("/{room}", endpoint)]))
    client = TestClient(instrument(app))
    for path, name in (("/v1/rooms/v1", "/v1/rooms/{room}"), ("/sub/a/a", "/sub/{s}/{room}")):
        segments.clear()
        with client.websocket_connect(path):
            pass
        assert f"WebSocket {name}" in names(segments)


def test_each_route_is_made_to_tell_once() -> None:
    note_routes()
    before = Mount.handle, Route.handle, WebSocketRoute.handle
    note_routes()
    assert (Mount.handle, Route.handle, WebSocketRoute.handle) == before


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({}, UNMATCHED),
        ({"route": SimpleNamespace(path="/x")}, "/x"),
        ({"route": object()}, UNMATCHED),
        ({"route": SimpleNamespace(path=None)}, UNMATCHED),
        ({"route": SimpleNamespace(path=7), "skywalking_background.mounts": "/m"}, UNMATCHED),
        ({"skywalking_background.mounts": "/m"}, "/m/{path}"),
        ({"skywalking_background.mounts": "/m", "route": Mount("/x", raw_app)}, "/m/{path}"),
        ({"skywalking_background.route": SimpleNamespace(path="/x"), "skywalking_background.mounts": "/m"}, "/m/x"),
        ({"route": SimpleNamespace(path="/x"), "fastapi": {}}, "/x"),
        ({"route": SimpleNamespace(path="/x"), "fastapi": {"effective_route_context": None}}, "/x"),
    ],
)
def test_a_scope_of_another_framework_has_a_name_too(scope: dict[str, Any], name: str) -> None:
    assert route_template(scope) == name


# Prefixes, and what is ignored.


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/health", "", "/health"),
        ("/api/health", "/api", "/health"),
        ("/api/health", "/api/", "/health"),
        ("/health", "/api", "/health"),  # a proxy has taken the prefix away
        ("/apiary", "/api", "/apiary"),
        ("/api", "/api", "/api"),
        ("/api/", "/api", "/"),
        ("/a/b/c", "/a/b", "/c"),
    ],
)
def test_a_path_is_looked_at_without_its_prefix(path: str, root: str, below: str) -> None:
    assert route_path({"path": path, "root_path": root}) == below


def test_a_server_may_leave_the_prefix_out() -> None:
    assert route_path({"path": "/x"}) == "/x"


def ignored(ignore: Any, path: str, root: str = "", method: str = "GET") -> bool:
    patterns = (ignore,) if isinstance(ignore, str) else ignore
    return Middleware("x", patterns, 400, None).ignores(method, {"path": path, "root_path": root})


@pytest.mark.parametrize(
    ("ignore", "path", "root", "matches"),
    [
        ((), "/", "", False),
        ("/health", "/health", "", True),
        ("/health", "/healthy", "", False),
        ("/health", "/x/health", "", False),
        (["/health", "/x.*"], "/health", "", True),
        (["/health", "/x.*"], "/xylophone", "", True),
        (["/a|/b", "/c"], "/b", "", True),
        (["/a|/b", "/c"], "/bc", "", False),
        ("/health", "/api/health", "/api", True),
        ("/health", "/health", "/api", True),
        ("/api/health", "/api/health", "/api", True),
        ("/api/health", "/health", "/api", False),
        ("/health", "/other/health", "/api", False),
    ],
)
def test_a_pattern_matches_a_whole_path(ignore: Any, path: str, root: str, matches: bool) -> None:
    assert ignored(ignore, path, root) is matches


def test_the_agents_own_patterns_and_methods_hold_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "agent_trace_ignore_path", "/health,/in/**")
    monkeypatch.setattr(config, "plugin_http_ignore_method", "HEAD")
    config.finalize_regex()
    try:
        assert ignored((), "/health")
        assert ignored((), "/in/a/b")
        assert ignored((), "/api/health", "/api")
        assert not ignored((), "/other")
        assert ignored((), "/other", method="HEAD")
        monkeypatch.setattr(config, "agent_trace_ignore_path", "/api/health")
        config.finalize_regex()
        assert ignored((), "/api/health", "/api")
        assert not ignored((), "/health", "/api")
    finally:
        monkeypatch.undo()
        config.finalize_regex()


@pytest.mark.parametrize("ignore", ["/health", ["/health"], ("/health",), {"/health"}, iter(["/health"])])
async def test_ignore_is_one_pattern_or_several(segments: Segments, ignore: Any) -> None:
    app = FastAPI()
    app.get("/health")(ok)
    app.get("/h")(ok)
    instrument(app, ignore=ignore)
    await get(app, "/health")
    assert segments == []
    await get(app, "/h")  # a letter of the pattern
    assert names(segments)[-1] == "HTTP GET /h"


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_prefix_changes_neither_names_nor_what_is_ignored(segments: Segments, prefix: str) -> None:
    app = FastAPI(root_path="/api")
    for path in ("/health", "/items/{item}"):
        app.get(path)(ok)
    sub = FastAPI()
    sub.get("/orders/{order}")(ok)
    app.mount("/t/{tenant}", sub)
    instrument(app, ignore="/health")
    assert await name_of(app, segments, prefix + "/items/api") == "/items/{item}"
    if prefix:  # without, Starlette itself finds nothing below a mount
        assert await name_of(app, segments, "/api/t/api/orders/api") == "/t/{tenant}/orders/{order}"
    segments.clear()
    await get(app, prefix + "/health")
    assert segments == []


@pytest.mark.parametrize("stripped", [True, False])
async def test_nor_does_one_that_the_server_says(segments: Segments, stripped: bool) -> None:
    app = FastAPI()
    for path in ("/health", "/items/{item}"):
        app.get(path)(ok)
    instrument(app, ignore="/health")
    transport = httpx.ASGITransport(app, root_path="/api")
    prefix = "" if stripped else "/api"
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get(prefix + "/health")).status_code == 200
        assert segments == []
        assert (await client.get(prefix + "/items/7")).status_code == 200
    assert names(segments)[-1] == "HTTP GET /items/{item}"


# What runs in the background.


def cpu(number: int = 0) -> int:
    return number


class Mailer:
    """Everything that a class can hold."""

    def __call__(self) -> None: ...

    def send(self) -> None: ...

    async def send_later(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    partial = functools.partialmethod(send)


class Child(Mailer):
    """Inherits it all."""


class Answering:
    """Answers every question about its name with an error."""

    def __getattr__(self, name: str) -> Any:
        if name in {"__qualname__", "__module__", "func"}:
            raise RuntimeError(name)
        raise AttributeError(name)

    def __call__(self) -> None: ...


class Named:
    """Has a name that is none."""

    __qualname__ = "Named"

    def __init__(self, name: object) -> None:
        self.__qualname__ = name  # type: ignore[assignment]

    def __call__(self) -> None: ...


def undecorated(func: Any) -> Any:
    def wrapper(*args: Any) -> Any:
        return func(*args)

    return wrapper


def with_options(func: Any) -> Any:
    times, log = 3, print

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        for _ in range(times):
            log(await func(*args, **kwargs))

    return wrapper


def retrying(func: Any) -> Any:
    times = 3

    def wrapper(**kwargs: Any) -> Any:
        return [func(**kwargs) for _ in range(times)]

    def starred(*args: Any, **kwargs: Any) -> Any:
        return [func(*args, **kwargs) for _ in range(times)]

    return wrapper, starred


def decorated(func: Any) -> Any:
    @functools.wraps(func)
    def wrapper(*args: Any) -> Any:
        return func(*args)

    return wrapper


def closure_over(func: Any) -> Any:
    def its_own() -> Any:
        return func()

    return its_own


def empty_cell() -> Any:
    def wrapper(*args: Any) -> Any:
        return later(*args)  # type: ignore[has-type]

    if args := ():
        later = args
    return wrapper


def local() -> Any:
    def inside() -> None: ...

    class Inside:
        def method(self) -> None: ...

        def __call__(self) -> None: ...

    return inside, Inside().method, Inside(), lambda: None


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (cpu, "cpu"),
        (Mailer().send, "Mailer.send"),
        (Mailer().send_later, "Mailer.send_later"),
        (Mailer.send, "Mailer.send"),
        (Mailer.static, "Mailer.static"),
        (Mailer.of_class, "Mailer.of_class"),
        (Mailer().partial, "Mailer.send"),
        (Child().send, "Mailer.send"),
        (Mailer(), "Mailer"),
        (Mailer, "Mailer"),
        (Child(), "Child"),
        (functools.partial(cpu, 3), "cpu"),
        (functools.partial(functools.partial(Mailer().send)), "Mailer.send"),
        (functools.partial(Mailer()), "Mailer"),
        (functools.lru_cache(cpu), "cpu"),
        (lambda: None, "<lambda>"),
        (local()[0], "inside"),
        (local()[1], "Inside.method"),
        (local()[2], "Inside"),
        (local()[3], "local.<lambda>"),
        (print, "print"),
        ([].append, "list.append"),
        (dict, "dict"),
        (Mock(), "Mock"),
        (MagicMock(), "MagicMock"),
        (Mock(spec=cpu), "Mock"),
        (Answering(), "Answering"),
        (Named(7), "Named"),
        (Named(""), "Named"),
        (Named("given"), "given"),
        (asyncio.sleep, "sleep"),
    ],
)
def test_a_span_is_named_after_what_runs(func: Any, name: str) -> None:
    assert span_name(func) == name


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (undecorated(cpu), "cpu"),
        (undecorated(undecorated(cpu)), "cpu"),
        (undecorated(Mailer().send), "Mailer.send"),
        (undecorated(functools.partial(cpu, 1)), "cpu"),
        (undecorated(functools.partial(undecorated(cpu), 1)), "cpu"),
        (undecorated(print), "print"),
        (retrying(cpu)[0], "wrapper"),
        (retrying(cpu)[1], "cpu"),
        (with_options(cpu), "wrapper"),  # print or cpu?
        (decorated(cpu), "cpu"),
        (undecorated(decorated(cpu)), "cpu"),
        (decorated(undecorated(cpu)), "wrapper"),
        (undecorated(Mailer()), "wrapper"),
        (undecorated(None), "wrapper"),
        (undecorated(7), "wrapper"),
        (closure_over(cpu), "its_own"),
        (empty_cell(), "wrapper"),
    ],
)
def test_a_wrapper_that_says_nothing_is_named_after_the_only_function_that_it_knows(func: Any, name: str) -> None:
    assert span_name(func) == name


@pytest.mark.parametrize(
    ("func", "args", "name"),
    [
        (run_in_threadpool, (cpu, 3), "cpu"),
        (asyncio.to_thread, (cpu,), "cpu"),
        (anyio.to_thread.run_sync, (cpu,), "cpu"),
        (asyncio.to_thread, (functools.partial(cpu, 3),), "cpu"),
        (asyncio.to_thread, (undecorated(cpu), 3), "cpu"),
        (run_in_threadpool, (asyncio.to_thread, cpu), "cpu"),
        (functools.partial(run_in_threadpool, cpu), (3,), "cpu"),
        (functools.partial(run_in_threadpool), (cpu, 3), "cpu"),
        (functools.partial(functools.partial(run_in_threadpool), cpu), (), "cpu"),
        (run_in_threadpool, (Mailer().send,), "Mailer.send"),
        (run_in_threadpool, (), "run_in_threadpool"),
        (run_in_threadpool, (7,), "run_in_threadpool"),
        (cpu, (print,), "cpu"),
        (undecorated(run_in_threadpool), (cpu,), "cpu"),
    ],
)
def test_a_runner_is_named_after_what_it_runs(func: Any, args: tuple[Any, ...], name: str) -> None:
    assert span_name(func, args) == name


async def test_so_is_an_executor() -> None:
    loop = asyncio.get_running_loop()
    assert span_name(loop.run_in_executor, (None, cpu)) == "cpu"
    assert span_name(loop.run_in_executor, (cpu,)).endswith("run_in_executor")


def test_a_function_that_is_wrapped_without_an_end_has_a_name() -> None:
    endless = functools.partial(cpu)
    looping = undecorated(print)
    looping.__closure__[0].cell_contents = looping
    assert span_name(endless) == "cpu"
    assert span_name(looping) == "wrapper"
