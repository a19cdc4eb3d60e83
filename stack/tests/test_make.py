"""The Makefile and the script before it: what is typed arrives as typed, in a folder of any name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from stack.settings import ROOT
from standins import ODD

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv[1:], dict(os.environ)]))
"""
UV = """#!/bin/sh
case "$1" in
--version) echo "uv 0.13.9" ;;
cache) echo "${TEST_CACHE:-$HOME/.cache/uv}" ;;
sync)
    env >uv-environment
    cat "$SSL_CERT_FILE" >certificates 2>/dev/null
    mkdir -p .venv/bin
    ln -sfn /bin/true .venv/bin/python
    ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Have the Makefile in a folder with an odd name, with something in the place of Python that tells what it got."""
    folder = tmp_path / ODD.replace("/", "|")
    (folder / "stack").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "stack/bootstrap.sh", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (folder / ".venv" / ".synced").touch()
    return folder


def run_make(clone: Path, *words: str, **environment: str) -> str:
    """Run it without what a `make` around these tests hands down."""
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["make", *words], cwd=clone, env={**plain, **environment}, check=True, capture_output=True, text=True
    ).stdout


def make(clone: Path, *words: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    arguments, seen = json.loads(run_make(clone, *words, **environment))
    return arguments, seen


def test_a_name_is_taken_as_it_is_typed(clone: Path) -> None:
    assert make(clone, "up", f"SERVICE_NAME={ODD}", f"RUN_DIR=/tmp/{ODD}")[1]["SERVICE_NAME"] == ODD
    assert make(clone, "up", SERVICE_NAME=ODD)[1]["SERVICE_NAME"] == ODD
    seen = make(clone, "up", "SERVICE_NAME=$(shell touch broken-in)`touch broken-in`", "STORAGE=")[1]
    assert seen["SERVICE_NAME"] == "$(shell touch broken-in)`touch broken-in`"
    assert "STORAGE" not in seen
    assert not (clone / "broken-in").exists()


def test_options_of_commands_are_taken_as_they_are_typed(clone: Path) -> None:
    assert make(clone, "logs", f"PART={ODD}", "LINES=7", "FOLLOW=1", LINES="50", COLUMNS="80")[0] == [
        *("-m", "stack", "logs", ODD, "--lines", "7", "--follow")
    ]
    assert make(clone, "logs", LINES="50")[0] == ["-m", "stack", "logs"], "a shell's own variable"
    assert make(clone, "load", f"SCENARIO={ODD}", "TAGS=a b", "TRACE_CLIENT=1")[0] == [
        *("-m", "stack", "load", "--scenario", ODD, "--tags", "a", "b", "--trace-client")
    ]


def test_an_incident_is_named_by_a_variable_or_by_a_second_word(clone: Path) -> None:
    plain = ["-m", "stack", "incident"]
    assert make(clone, "incident")[0] == plain
    assert make(clone, "incident", NAME="a-shell-variable")[0] == [*plain, "a-shell-variable"]
    assert make(clone, "incident", f"NAME={ODD}")[0] == [*plain, ODD]
    assert make(clone, "incident", "threads")[0] == [*plain, "threads"]


def test_commands_for_programs_and_for_a_service_of_ones_own(clone: Path) -> None:
    assert make(clone, "status", "JSON=1")[0] == ["-m", "stack", "status", "--json"]
    assert make(clone, "doctor", "JSON=0")[0] == ["-m", "stack", "doctor"]
    own = ("SERVICE_URL=http://a b", "OAP_URL=http://c", "PATHS=/a /b?c=d", "TASK_SECONDS=20")
    assert make(clone, "verify", *own)[0] == [
        *("-m", "stack", "verify", "--service-url", "http://a b", "--oap-url", "http://c"),
        *("--paths", "/a", "/b?c=d", "--task-seconds", "20"),
    ]


def bootstrap(clone: Path, **environment: str) -> dict[str, str]:
    """Run it with a `uv` that notes what it was given."""
    shutil.rmtree(clone / ".venv")
    tools = clone.parent / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "uv").write_text(UV)
    (tools / "uv").chmod(0o755)
    subprocess.run(
        ["sh", "stack/bootstrap.sh"],
        cwd=clone,
        env={"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(clone.parent), **environment},
        check=True,
    )
    lines = (clone / "uv-environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize(("command", "options"), [("up", "--no-group dev --inexact"), ("lint", "")])
def test_who_only_runs_the_stack_gets_no_tools_of_developers(clone: Path, command: str, options: str) -> None:
    (clone / ".venv" / ".synced").unlink()
    assert run_make(clone, "-n", command).splitlines()[0].split() == ["sh", "stack/bootstrap.sh", *options.split()]
    (clone / ".venv" / ".tools").touch()
    (clone / ".venv" / ".synced").touch()
    assert "bootstrap" not in run_make(clone, "-n", command)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"])
def test_uv_and_pip_trust_what_any_variable_names(clone: Path, variable: str) -> None:
    company = clone.parent / "a company's.pem"
    company.write_text("THE COMPANY")
    seen = bootstrap(clone, **{variable: str(company)})
    assert seen["SSL_CERT_FILE"] == seen["PIP_CERT"] == seen["REQUESTS_CA_BUNDLE"]
    assert "THE COMPANY" in (clone / "certificates").read_text()


def test_without_such_a_variable_nothing_is_set(clone: Path) -> None:
    assert "SSL_CERT_FILE" not in bootstrap(clone)


def test_the_file_of_settings_is_read_for_the_downloads(clone: Path) -> None:
    (clone / ".env").write_bytes(
        b'# UV_DEFAULT_INDEX=no\r\nexport UV_DEFAULT_INDEX="https://m/simple"\r\nno_proxy=x\r\n'
    )
    seen = bootstrap(clone, no_proxy="mine")
    assert seen["UV_DEFAULT_INDEX"] == "https://m/simple"
    assert seen["no_proxy"] == "mine"


@pytest.mark.parametrize("cache", ["/proc/none/uv", "/dev/null/uv"])
def test_without_a_home_uv_keeps_its_files_here(clone: Path, cache: str) -> None:
    assert bootstrap(clone, TEST_CACHE=cache)["UV_CACHE_DIR"] == f"{clone}/.run/uv-cache"
    assert "UV_CACHE_DIR" not in bootstrap(clone)
