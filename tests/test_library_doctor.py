"""`python -m skywalking_background doctor` as users run it: beside a real OAP, and without one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import skywalking
from harness import free_port

if TYPE_CHECKING:
    from harness import OapServer

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@dataclass
class Examination:
    """What the doctor said, and how long it took."""

    code: int
    lines: dict[str, tuple[str, str]]
    """By what was looked at: the mark and the sentence."""
    text: str
    seconds: float


def examine(address: str, *arguments: str, folder: Path | None = None, **environment: str) -> Examination:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "skywalking_background", "doctor", *arguments],
        env={
            **ENVIRONMENT,
            "SW_AGENT_NAME": "doctor-test",
            "SW_AGENT_COLLECTOR_BACKEND_SERVICES": address,
            **({"PYTHONPATH": str(folder)} if folder else {}),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    seconds = time.monotonic() - began
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    parts = [line.split(None, 2) for line in done.stdout.splitlines()]
    return Examination(done.returncode, {name: (mark, text) for mark, name, text in parts}, done.stdout, seconds)


def test_all_is_well(oap: OapServer) -> None:
    found = examine(oap.grpc)
    assert found.code == 0, found.text
    assert found.lines["agent"][0] == "ok"
    assert "apache-skywalking 1.3" in found.lines["agent"][1]
    assert found.lines["plugin"] == ("ok", "the agent's own FastAPI plugin is off, as it should be")
    assert found.lines["OAP"] == ("ok", f"{oap.grpc} takes segments")
    assert found.lines["fork"][0] == found.lines["segment"][0] == "-"  # nothing is sent without being asked


def test_segment_is_sent_and_read_back(oap: OapServer) -> None:
    found = examine(oap.grpc, "--query", oap.url)
    assert found.lines["segment"][0] == "ok", found.text
    match = re.fullmatch(r"sent and read back: trace (\w+)", found.lines["segment"][1])
    assert match
    (span,) = oap.client.trace(match[1])
    assert span.name == "skywalking_background doctor"


def test_forked_child_reports(oap: OapServer) -> None:
    found = examine(oap.grpc, "--query", oap.url)
    assert found.lines["fork"][0] == "ok", found.text
    assert found.code == 0


def test_query_address_is_wrong(oap: OapServer) -> None:
    found = examine(oap.grpc, "--query", f"http://{oap.grpc}")
    assert found.code == 1
    assert found.lines["segment"][0] == "FAILED"
    assert "name OAP's HTTP address, as in --query http://127.0.0.1:12800" in found.lines["segment"][1]


def test_http_port_instead_of_the_grpc_port(oap: OapServer) -> None:
    found = examine(oap.url.removeprefix("http://"))
    assert found.code == 1
    assert found.lines["OAP"][0] == "FAILED"
    assert "name OAP's gRPC port (11800, not 12800)" in found.lines["OAP"][1]


def test_no_oap_is_said_within_seconds() -> None:
    address = f"127.0.0.1:{free_port()}"
    found = examine(address, "--query", "http://127.0.0.1:1")
    assert found.code == 1
    assert found.lines["OAP"][1].startswith(f"nobody listens at {address}: start OAP")
    assert "segment" not in found.lines  # what follows from a failure is left out
    # On a busy machine the imports alone may take as long.
    assert min(found.seconds, examine(address).seconds) < 5


def test_proxy_in_the_way(oap: OapServer) -> None:
    # A way to write the loopback address that does not look like one: gRPC would ask the proxy for it.
    address = oap.grpc.replace("127.0.0.1", "127.1")
    proxy: dict[str, Any] = {"http_proxy": f"http://127.0.0.1:{free_port()}", "GRPC_DNS_RESOLVER": "native"}
    found = examine(address, **proxy)
    assert found.code == 1
    assert found.lines["OAP"][1] == (
        "the proxy in http_proxy is between here and OAP and does not let gRPC pass: add '127.1' to no_proxy"
    )
    assert examine(address, **proxy, no_proxy="127.1").lines["OAP"][0] == "ok"


def test_plugin_was_started_by_somebody_else(tmp_path: Path, oap: OapServer) -> None:
    # As `sw-python run` does it: the agent starts before anything else.
    (tmp_path / "sitecustomize.py").write_text("from skywalking import agent\nagent.start()\n")
    found = examine(oap.grpc, folder=tmp_path, SW_AGENT_LOGGING_LEVEL="CRITICAL")
    assert found.code == 1
    assert found.lines["plugin"][0] == "FAILED"
    assert "SW_AGENT_DISABLE_PLUGINS=sw_fastapi" in found.lines["plugin"][1]
    assert "OAP" not in found.lines


def test_service_without_a_name(oap: OapServer) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "SW_AGENT_NAME"}
    done = subprocess.run(
        [sys.executable, "-m", "skywalking_background", "doctor"],
        env={**environment, "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "FAILED  name     the service has no name" in done.stdout
    assert "set SW_AGENT_NAME" in done.stdout


def test_library_is_switched_off(oap: OapServer) -> None:
    found = examine(oap.grpc, SKYWALKING_BACKGROUND_ENABLED="false")
    assert found.code == 1
    assert found.lines["switch"] == ("FAILED", "SKYWALKING_BACKGROUND_ENABLED switches the library off: unset it")


@pytest.fixture
def broken_agent(tmp_path: Path) -> Path:
    """An agent as its wheel was published: without its protocol package."""
    agent = tmp_path / "skywalking"
    shutil.copytree(Path(skywalking.__path__[0]), agent, ignore=shutil.ignore_patterns("protocol", "__pycache__"))
    shutil.copytree(Path(skywalking.__path__[0]) / "agent" / "protocol", agent / "agent" / "protocol")
    return tmp_path


def test_agent_without_its_protocol_package(broken_agent: Path) -> None:
    found = examine("127.0.0.1:1", folder=broken_agent)
    assert found.code == 1
    assert list(found.lines) == ["agent"]
    mark, text = found.lines["agent"]
    assert mark == "FAILED"
    assert text.startswith("apache-skywalking is installed without its package `skywalking.protocol`: reinstall")
    assert "pip install --force-reinstall --no-deps --no-binary apache-skywalking" in text
    assert "uv pip install --reinstall-package apache-skywalking --no-binary apache-skywalking" in text


def test_import_says_the_same(broken_agent: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import skywalking_background"],
        env={**ENVIRONMENT, "PYTHONPATH": str(broken_agent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: apache-skywalking is installed without its package `skywalking.protocol`: ")


def test_generated_code_does_not_fit_protobuf(tmp_path: Path) -> None:
    """Somebody pins an older protobuf than the generated files were made for."""
    (tmp_path / "sitecustomize.py").write_text(
        "from google.protobuf import runtime_version\n"
        "def refuse(*_): raise runtime_version.VersionError('Detected mismatched Protobuf Gencode/Runtime')\n"
        "runtime_version.ValidateProtobufRuntimeVersion = refuse\n"
    )
    found = examine("127.0.0.1:1", folder=tmp_path)
    assert found.code == 1
    assert "`pip install --upgrade grpcio protobuf`" in found.lines["agent"][1]
    assert "Detected mismatched" in found.lines["agent"][1]
