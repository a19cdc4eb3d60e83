"""The library as people get it: built, installed into an empty environment, and the README's example run from there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_string
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest
from harness import ROOT, OapServer, find_python, find_uv, serve
from oap_query import build, outline

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

README = (ROOT / "tracing" / "README.md").read_text()
TASK_SECONDS = 10
TREE = """Entry HTTP GET /test 200
  Local FastAPI request handling 200
  Local background_sleep_task CROSS_THREAD"""
# What a user's environment does not say: above all not that the agent is to be built from its source.
FORCED = ("PIP_NO_BINARY", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "VIRTUAL_ENV")
CLEAN = {name: value for name, value in os.environ.items() if name not in FORCED}


@dataclass
class Built:
    """Both distributions."""

    wheel: Path
    sdist: Path

    def names(self) -> tuple[set[str], set[str]]:
        """List the files of the wheel, and of the sdist without its top folder."""
        with zipfile.ZipFile(self.wheel) as wheel, tarfile.open(self.sdist) as sdist:
            return set(wheel.namelist()), {name.partition("/")[2] for name in sdist.getnames()}

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return message_from_string(wheel.read(name).decode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    run([find_uv(), "build", ROOT / "tracing", "--out-dir", folder], ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def run(command: list[Path | str], folder: Path) -> str:
    """Run it away from the repository, whose settings a user does not have."""
    done = subprocess.run(command, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_licences_and_types_are_in_both(built: Built) -> None:
    wheel, sdist = built.names()
    licences = {name.rpartition("/")[2] for name in wheel if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
    assert {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "tests/conftest.py"} <= sdist
    assert "skywalking_background/py.typed" in wheel
    assert "skywalking_background/__main__.py" in wheel


def test_protocol_package_is_in_both_with_its_notice(built: Built) -> None:
    wheel, sdist = built.names()
    for name in ("NOTICE", "protocol/__init__.py", "protocol/language_agent/Tracing_pb2_grpc.py"):
        assert f"skywalking_background/_packed/{name}" in wheel
        assert f"src/skywalking_background/_packed/{name}" in sdist


def test_wheel_has_nothing_else(built: Built) -> None:
    wheel, _ = built.names()
    packed = {name for name in wheel if name.startswith("skywalking_background/_packed/")}
    source = ROOT / "tracing" / "src" / "skywalking_background"
    files = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
    ours = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    inside = {name.partition("/")[2] for name in wheel - packed if name.startswith("skywalking_background/")}
    assert inside == ours
    assert not [name for name in packed if not name.endswith((".py", "NOTICE"))]


def test_metadata(built: Built) -> None:
    found = built.metadata()
    assert found["License-Expression"] == "Apache-2.0"
    assert found.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert found["Requires-Python"] == ">=3.11"
    (agent,) = (line for line in found.get_all("Requires-Dist", []) if line.startswith("apache-skywalking"))
    assert agent == "apache-skywalking<1.4,>=1.3"  # what we touch of it is private
    assert {f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12", "3.13")} <= set(
        found.get_all("Classifier", [])
    )


def test_readme_links_to_nothing_beside_it() -> None:
    """Its page on a package index stands alone."""
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def install(installer: str, python: str, built: Built, folder: Path) -> Path:
    """Make an empty environment, and install into it without a flag."""
    interpreter = find_python(python)
    wanted: list[Path | str] = ["fastapi==0.165.0", "uvicorn==0.54.0"]
    made = folder / "venv" / "bin" / "python"
    if installer == "uv":
        run([find_uv(), "venv", "--python", interpreter, folder / "venv"], folder)
        # Without its cache: this repository has put an agent there that was built from the source.
        run([find_uv(), "pip", "install", "--no-cache", "--python", made, built.wheel, *wanted], folder)
    else:
        distribution = built.sdist if "sdist" in installer else built.wheel
        run([interpreter, "-m", "venv", folder / "venv"], folder)
        run([made, "-m", "pip", "install", "--quiet", distribution, *wanted], folder)
    return made


@pytest.mark.parametrize(("installer", "python"), [("pip", "3.11"), ("uv", "3.12"), ("pip, sdist", "3.13")])
def test_readme_example_from_an_empty_environment(
    installer: str, python: str, built: Built, oap: OapServer, tmp_path: Path
) -> None:
    made = install(installer, python, built, tmp_path)
    example = re.search(r"```python\n(.+?)```", README, re.DOTALL)
    assert example
    (tmp_path / "main.py").write_text(example[1])
    name = f"published-{uuid4().hex[:6]}"
    arguments = ("--app-dir", str(tmp_path))
    with serve(tmp_path, name, oap.grpc, app="main:app", arguments=arguments, health="/docs", python=made) as server:
        answer = httpx.get(f"{server.url}/test", trust_env=False)
        assert answer.json() == "ok"
        trace_id = answer.headers["X-Trace-Id"]
        spans = oap.client.wait_for_trace(trace_id, lambda found: outline(build(found)) == TREE, TASK_SECONDS + 30)
        assert outline(build(spans)) == TREE
        (task,) = (span for span in spans if span.name == "background_sleep_task")
        assert TASK_SECONDS * 1000 - 1 <= task.end - task.start <= TASK_SECONDS * 1000 + 2000
    doctor = [str(made), "-m", "skywalking_background", "doctor"]
    environment = {**CLEAN, "SW_AGENT_NAME": name, "SW_AGENT_COLLECTOR_BACKEND_SERVICES": oap.grpc}
    done = subprocess.run(doctor, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skywalking.protocol is packed with this library" in done.stdout  # else the packing can go


def test_without_the_packed_files_one_sentence_says_what_to_do(built: Built, tmp_path: Path) -> None:
    made = install("uv", "3.11", built, tmp_path)
    (packed,) = (tmp_path / "venv").glob("lib/python3.11/site-packages/skywalking_background/_packed")
    shutil.rmtree(packed)
    done = subprocess.run([made, "-c", "import skywalking_background"], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: apache-skywalking is installed without its package `skywalking.protocol`")
    commands = re.findall(r"`((?:uv )?pip install [^`]+)`", last)
    assert [command.partition(" ")[0] for command in commands] == ["pip", "uv"]
    uv = commands[1].replace("uv pip install", f"{find_uv()} pip install --python {made}")
    subprocess.run(uv, shell=True, check=True, capture_output=True)
    run([made, "-c", "import skywalking_background"], tmp_path)
