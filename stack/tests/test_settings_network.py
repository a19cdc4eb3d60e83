"""With a company's proxy in the environment, and no `no_proxy`, all on this machine goes as without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from stack.runtime import NativeRuntime
from stack.runtime.checks import check_environment
from stack.settings import ROOT
from stack.settings.network import LOOPBACK, direct, exempt_loopback, proxies, without_password
from standins import web_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stack.runtime.native.parts import Part
    from stack.settings import Settings

DEAD = "http://127.0.0.1:9"
NAMES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
HEALTH = re.compile(r"\"(import os, urllib\.request as web; [^\"]*)\"")


@pytest.fixture
def dead_proxy() -> Iterator[None]:
    """Name a proxy at which nobody listens."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(NAMES, DEAD))
    for name in ("no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_without_a_proxy_nothing_is_changed() -> None:
    assert direct({"no_proxy": "corp", "PATH": "/bin"}) == {}


def test_what_is_excepted_already_stays_so() -> None:
    found = direct({"HTTPS_PROXY": DEAD, "NO_PROXY": "corp, 10.0.0.0/8", "no_proxy": "corp,x"})
    assert found["no_proxy"] == found["NO_PROXY"] == f"corp,x,10.0.0.0/8,{','.join(LOOPBACK)}"
    assert direct({"http_proxy": DEAD, "no_grpc_proxy": "x"})["no_grpc_proxy"] == f"x,{','.join(LOOPBACK)}"


@pytest.mark.usefixtures("dead_proxy")
def test_a_star_excepts_everything_for_all_who_read_it() -> None:
    os.environ["no_proxy"] = "*"
    exempt_loopback()
    assert proxies(os.environ) == {}


def test_a_password_is_not_without_password() -> None:
    assert without_password("http://me:secret@proxy:8080") == "http://me:***@proxy:8080"
    assert without_password("proxy:8080") == "proxy:8080"


@pytest.mark.usefixtures("dead_proxy")
def test_a_part_is_told_to_leave_the_loopback_alone_and_keeps_the_proxy(
    settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    exempt_loopback()
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    assert NativeRuntime(settings).status() == 0
    environment = psutil.Process(NativeRuntime(settings).pids()["service"]).environ()
    assert environment["https_proxy"] == DEAD
    assert "127.0.0.1" in environment["no_proxy"].split(",")


@pytest.mark.usefixtures("dead_proxy")
def test_the_command_line_does_so_first_of_all() -> None:
    program = (
        "import os; from stack import commands as c; c._run = lambda *_: print(os.environ['no_proxy']) or 0; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", program, "status"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ",".join(LOOPBACK)


@pytest.mark.usefixtures("dead_proxy")
def test_doctor_names_the_proxy_and_what_becomes_of_it(settings: Settings) -> None:
    found = [check for check in check_environment(settings) if check.name == "proxy"]
    names = ", ".join(name for name in os.environ if name in NAMES)
    finding = f"{names}={DEAD}: downloads use it, connections on this machine do not"
    assert [check.finding for check in found] == [finding]


def test_doctor_names_certificates_that_cannot_be_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", "/nowhere/company.pem")
    (bad,) = [check for check in check_environment(settings) if not check.fine]
    assert bad.finding == "PIP_CERT=/nowhere/company.pem: can't be read"


@pytest.mark.usefixtures("dead_proxy")
@pytest.mark.parametrize("file", ["compose.yaml", "Dockerfile"])
def test_health_checks_of_containers_need_no_proxy(
    settings: Settings, use_parts: Callable[..., list[Part]], file: str
) -> None:
    (program,) = HEALTH.findall((ROOT / file).read_text())
    use_parts(web_part(settings))
    assert NativeRuntime(settings).up() == 0
    environment = {**os.environ, "HEALTH_URL": settings.service_url}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
