"""The Redis that the stack brings along is closed to others, and loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest
from harness import free_port
from redis import AuthenticationError, Redis, ResponseError
from stack.runtime import NativeRuntime, passwords
from stack.runtime.native import broker
from stack.runtime.native.parts import native_parts
from stack.runtime.native.supervisor import Supervisor
from stack.runtime.processes import stack_processes
from standins import ODD, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stack.runtime.native.parts import Part
    from stack.settings import Settings


@pytest.fixture
def native(settings: Settings) -> Settings:
    settings.runtime, settings.redis_port = "native", free_port()
    return settings


@pytest.mark.parametrize("bundled", [False, True])
def test_the_stacks_own_redis_asks_for_a_password_and_loses_nothing_when_it_is_killed(
    native: Settings,
    use_parts: Callable[..., list[Part]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    bundled: bool,
) -> None:
    if bundled:
        monkeypatch.setattr(broker, "SERVERS", ())
    broker.find_server.cache_clear()
    native.run_dir = tmp_path / ODD.replace("\\", "")
    passwords.make_missing(native)
    use_parts(next(part for part in native_parts(native) if part.name == "broker"))
    try:
        assert NativeRuntime(native).up() == 0
        made = passwords.load(native)["REDIS_PASSWORD"]
        server = psutil.Process(NativeRuntime(native).pids()["broker"])
        assert server in stack_processes(native.run_dir)
        assert made not in " ".join(server.cmdline())
        assert (native.run_dir / "broker" / "redis.conf").stat().st_mode & 0o077 == 0
        with pytest.raises(AuthenticationError):
            Redis(port=native.redis_port).ping()
        client = Redis(port=native.redis_port, password=made)
        with pytest.raises(ResponseError, match="maxmemory"):
            _ = [client.set(f"big-{number}", b"x" * 2**20) for number in range(100)]
        client.flushall()
        for number in range(100):
            client.set(f"key-{number}", number)
        server.kill()
        server.wait()
        wait_for(lambda: NativeRuntime(native).pids().get("broker", 0) not in {0, server.pid})
        wait_for(lambda: Supervisor(native.run_dir).infos()["broker"]["statename"] == "RUNNING")
        assert NativeRuntime(native).status() == 0
        assert client.dbsize() == 100
    finally:
        NativeRuntime(native).down()
        broker.find_server.cache_clear()
    assert stack_processes(native.run_dir) == []
