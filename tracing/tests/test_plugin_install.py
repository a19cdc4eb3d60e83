"""The agent's plugins: each is installed with the import of the package that it traces, unless it is disabled."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from skywalking import config
from skywalking_background import _plugins

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = """
import fakes_installed
support_matrix = {}
def install():
    fakes_installed.names.append(__name__.rpartition(".")[2])
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the plugins that were installed, of a package of fakes in the agent's place."""
    folder = tmp_path / "fake_plugins"
    folder.mkdir()
    (folder / "__init__.py").write_text("def pkg_version_check(plugin): return not hasattr(plugin, 'too_old')")
    for name in ("sw_at_once", "sw_later", "sw_present", "sw_off"):
        (folder / f"{name}.py").write_text(PLUGIN)
    (folder / "sw_old.py").write_text(PLUGIN + "too_old = True\n")
    (folder / "sw_broken.py").write_text("raise ImportError('no such thing')")
    (tmp_path / "fakes_installed.py").write_text("names = []")
    (tmp_path / "traced_later.py").touch()
    (tmp_path / "traced_present.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [one for one in sys.modules if one.startswith(("fake", "traced_"))]:
        monkeypatch.delitem(sys.modules, name)
    import fake_plugins  # type: ignore[import-not-found]
    import fakes_installed  # type: ignore[import-not-found]
    import traced_present  # type: ignore[import-not-found]  # noqa: F401

    monkeypatch.setattr(_plugins, "plugins", fake_plugins)
    monkeypatch.setattr(_plugins, "TRIGGERS", {"sw_later": "traced_later", "sw_present": "traced_present"})
    monkeypatch.setattr(config, "agent_disable_plugins", ["", " sw_of "])
    found: list[str] = fakes_installed.names
    return found


def test_each_is_installed_with_its_package(installed: list[str], caplog: pytest.LogCaptureFixture) -> None:
    _plugins.install()
    assert sorted(installed) == ["sw_at_once", "sw_present"]
    import traced_later  # type: ignore[import-not-found]  # noqa: F401

    assert sorted(installed) == ["sw_at_once", "sw_later", "sw_present"]
    assert [record.getMessage() for record in caplog.records] == [
        "the agent's plugin sw_broken does not fit what is installed here: no such thing"
    ]


def test_what_is_disabled_is_no_pattern_for_the_middle_of_a_name(
    installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "agent_disable_plugins", ["off", "sw_(later|present)$", "sw_broken"])
    _plugins.install()
    import traced_later  # noqa: F401

    assert sorted(installed) == ["sw_at_once", "sw_off"]


def test_one_that_fails_to_install_is_said_and_the_others_go_on(
    installed: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_plugin: Any) -> bool:
        raise TypeError("odd")

    monkeypatch.setattr(_plugins.plugins, "pkg_version_check", check)
    _plugins._install("sw_at_once")
    assert installed == []
    assert caplog.records[0].getMessage() == "the agent's plugin sw_at_once does not fit what is installed here: odd"


async def test_what_asyncpg_passes_by_name_reaches_the_plugin_by_place() -> None:
    async def traced(protocol: Any, stmt: Any, params: Any, *rest: Any, **named: Any) -> Any:
        return protocol, stmt, params, rest, named

    call = _plugins._by_name(traced)
    assert await call("p", state="s", args="a", limit=1) == ("p", "s", "a", (), {"limit": 1})
    assert await call("p", "s", "a", "portal") == ("p", "s", "a", ("portal",), {})


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> Any:
    """A package that may not be installed here."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.mark.parametrize("ours", [True, False])
async def test_of_aiormq_the_plugin_consumes_unless_a_middleware_of_ours_does(
    monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    class Channel:
        async def basic_consume(self, queue: str, *, no_ack: bool) -> Any:
            return "untraced", queue, no_ack

    fake(monkeypatch, "aiormq", Channel=Channel)

    def install() -> None:
        async def traced(_self: Any, queue: str, *, no_ack: bool) -> Any:
            return "traced", queue, no_ack

        Channel.basic_consume = traced  # type: ignore[assignment]

    monkeypatch.setattr(_plugins.Messages, "ours", ours)
    _plugins.ADAPTED["sw_aiormq"](SimpleNamespace(install=install))
    assert await Channel().basic_consume("films", no_ack=True) == ("untraced" if ours else "traced", "films", True)
    assert Channel.basic_consume.__name__ == "basic_consume"


async def test_of_asyncpg_both_ways_to_execute_take_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Protocol: ...

    fake(monkeypatch, "asyncpg")
    fake(monkeypatch, "asyncpg.protocol", Protocol=Protocol)

    async def traced(_protocol: Any, stmt: Any, params: Any, **named: Any) -> Any:
        return stmt, params, named

    def install() -> None:
        Protocol.bind_execute = Protocol.bind_execute_many = traced  # type: ignore[attr-defined]

    _plugins.ADAPTED["sw_asyncpg"](SimpleNamespace(install=install))
    for name in ("bind_execute", "bind_execute_many"):
        assert await getattr(Protocol(), name)(state="s", args="a", timeout=1) == ("s", "a", {"timeout": 1})


def test_ours_takes_the_place_of_the_agents(installed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fake(monkeypatch, "fakes_ours", install=lambda: done.append("ours"))
    monkeypatch.setattr(_plugins, "OURS", {"sw_at_once": "fakes_ours"})
    monkeypatch.setattr(_plugins, "ADAPTED", {"sw_later": lambda plugin: done.append(plugin.__name__)})
    _plugins._install("sw_at_once")
    _plugins._install("sw_later")
    assert (installed, done) == ([], ["ours", "fake_plugins.sw_later"])
