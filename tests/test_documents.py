"""Every command of the documents is taken from there and run, or is run by what `documented.py` names.

With STACK_UP=1 and a stack on the usual ports those that need one are run too: the stage `readme` of `.ci/run`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT, Command, commands, place_of

COMMANDS = commands()
TO_RUN = sorted({one.text for one in COMMANDS if place_of(one.text) == ["here"]})
WITH_STACK = sorted({one.text for one in COMMANDS if place_of(one.text) == ["stack"]})


def run(command: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "COV_"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= {"SW_AGENT_NAME": "documents", "SW_AGENT_COLLECTOR_BACKEND_SERVICES": "127.0.0.1:11800"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_documents_have_commands() -> None:
    assert {"make up", "make down", "curl -i http://127.0.0.1:8000/test"} <= {one.text for one in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: f"{one.document}: {one.text}"[:80])
def test_a_command_has_one_place_where_it_is_run(command: Command) -> None:
    places = place_of(command.text)
    assert len(places) == 1, f"{command}: documented.py must name it once, and has {places}"
    (place,) = places
    if place.startswith("by "):
        named = place.removeprefix("by ")
        stages = (ROOT / ".ci" / "run").read_text()
        assert (ROOT / named).is_file() or f"{named} " in stages.replace("\n", " "), f"{command}: {named} is not there"


@pytest.mark.parametrize("command", TO_RUN, ids=str)
def test_a_command_runs(command: str) -> None:
    run(command)


def test_make_lists_the_commands_that_documents_name() -> None:
    named = {found[1] for one in COMMANDS if (found := re.search(r"\bmake ([a-z-]+)", one.text))}
    listed = set(re.findall(r"^  make ([a-z-]+)", run("make"), re.MULTILINE))
    assert named <= listed, named - listed


def test_a_document_that_is_linked_is_there() -> None:
    for document in {one.document for one in COMMANDS}:
        path = ROOT / document
        for link in re.findall(r"(?:\]\(|src=\")([^)#\"]+)", path.read_text()):
            assert "://" in link or (path.parent / link).exists(), f"{document} links to {link}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.skipif("STACK_UP" not in os.environ, reason="STACK_UP=1 says that a stack is up on the usual ports")
@pytest.mark.parametrize("command", WITH_STACK, ids=str)
def test_a_command_runs_beside_the_stack(command: str) -> None:
    said = run(command)
    if command.startswith("curl -i"):
        assert re.search(r"^HTTP/1\.1 200 OK\r?$", said, re.MULTILINE)
        assert re.search(r"^x-trace-id: \S+", said, re.MULTILINE | re.IGNORECASE)
    if command.startswith("make verify"):
        assert "every line of the contract holds" in said
