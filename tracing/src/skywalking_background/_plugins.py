"""The agent's plugins, each installed when the package that it traces is imported.

The agent installs them all at its start, and so imports every package that it could trace and that happens to be
installed: a second of start-up, 40,000 more objects for the garbage collector to go through, and whatever importing a
package does. A package that the process never imports needs no plugin.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, Any, Final

from wrapt import register_post_import_hook

from skywalking_background._faults import logger
from skywalking_background._internals import config, plugins

if TYPE_CHECKING:
    from collections.abc import Callable


TRIGGERS: Final = {
    "sw_aiohttp": "aiohttp",
    "sw_aioredis": "aioredis",
    "sw_aiormq": "aiormq",
    "sw_amqp": "amqp",
    "sw_asyncpg": "asyncpg",
    "sw_bottle": "bottle",
    "sw_celery": "celery",
    "sw_confluent_kafka": "confluent_kafka",
    "sw_django": "django.core.handlers.base",
    "sw_elasticsearch": "elasticsearch",
    "sw_falcon": "hug",
    "sw_falcon_v3": "falcon",
    "sw_fastapi": "starlette.middleware.exceptions",
    "sw_flask": "flask",
    "sw_grpc": "grpc",
    "sw_happybase": "happybase",
    "sw_http_server": "http.server",
    "sw_httpx": "httpx",
    "sw_kafka": "kafka",
    "sw_loguru": "loguru",
    "sw_mysqlclient": "MySQLdb",
    "sw_neo4j": "neo4j",
    "sw_psycopg": "psycopg",
    "sw_psycopg2": "psycopg2",
    "sw_pulsar": "pulsar",
    "sw_pymongo": "pymongo",
    "sw_pymysql": "pymysql",
    "sw_pyramid": "pyramid.router",
    "sw_rabbitmq": "pika",
    "sw_redis": "redis",
    "sw_requests": "requests",
    "sw_sanic": "sanic",
    "sw_sanic_v2": "sanic",
    "sw_tornado": "tornado.web",
    "sw_urllib3": "urllib3",
    "sw_urllib3_v2": "urllib3",
    "sw_urllib_request": "urllib.request",
    "sw_websockets": "websockets",
}
"""The module whose import makes a plugin of the agent 1.3 of use; one that is not listed is installed at once."""


OURS: Final = {"sw_celery": "skywalking_background._celery"}
"""Modules of ours that are installed instead of a plugin of the agent's, see there for why."""


class Messages:
    """Who makes the spans of what arrives from RabbitMQ by aio-pika."""

    ours = False
    """Whether a middleware of ours does. The agent's plugin then keeps to publishing, below which it makes none."""


def install() -> None:
    """Have each plugin installed with its package: at once if that is imported already. Instead of the agent's own."""
    for _, name, _ in pkgutil.iter_modules(plugins.__path__):
        if any(pattern.strip() and re.match(pattern.strip(), name) for pattern in config.agent_disable_plugins):
            continue
        trigger = TRIGGERS.get(name)
        if trigger is None:
            _install(name)
        else:
            register_post_import_hook(_installing(name), trigger)


def _installing(name: str) -> Callable[[Any], None]:
    return lambda _module: _install(name)


def _install(name: str) -> None:
    try:
        if name in OURS:
            importlib.import_module(OURS[name]).install()
            return
        plugin = importlib.import_module(f"{plugins.__name__}.{name}")
        if plugins.pkg_version_check(plugin):
            ADAPTED.get(name, _install_as_it_is)(plugin)
    except Exception as error:  # noqa: BLE001  # somebody is importing the package
        logger.warning("the agent's plugin %s does not fit what is installed here: %s", name, error)


def _install_aiormq(plugin: Any) -> None:  # noqa: ANN401  # the agent has no types
    from aiormq import Channel  # noqa: PLC0415  # it has just been imported

    untraced = Channel.basic_consume
    plugin.install()
    traced = Channel.basic_consume

    @functools.wraps(untraced)
    async def basic_consume(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return await (untraced if Messages.ours else traced)(*args, **kwargs)

    Channel.basic_consume = basic_consume  # type: ignore[method-assign]


def _install_as_it_is(plugin: Any) -> None:  # noqa: ANN401  # the agent has no types
    plugin.install()


def _install_asyncpg(plugin: Any) -> None:  # noqa: ANN401  # the agent has no types
    from asyncpg.protocol import Protocol  # type: ignore[import-untyped]  # noqa: PLC0415  # it has just been imported

    plugin.install()
    for name in ("bind_execute", "bind_execute_many"):
        setattr(Protocol, name, _by_name(getattr(Protocol, name)))


def _by_name(traced: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of asyncpg be called with names, as its newer versions do; the plugin's own fails then."""

    async def call(protocol: Any, state: Any, args: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401
        return await traced(protocol, state, args, *rest, **named)

    return call


ADAPTED: Final = {"sw_aiormq": _install_aiormq, "sw_asyncpg": _install_asyncpg}
"""What must be done beside installing a plugin of the agent's."""
