"""Every command in the documents, and what runs it. One that nothing here names makes `test_documents.py` fail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
FILES: Final = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "*/README.md", "docs/**/*.md")
_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SHELL: Final = frozenset({"sh", "bash", "console"})
_INLINE: Final = re.compile(
    r"`((?:[A-Z_]+=\S+ )*(?:make|curl|pip|uv|uvx|python -m|\.venv/bin/\S+|\.ci/[\w.]+)(?: [^`\n]*)?)`"
)
_INDENTED: Final = re.compile(
    r"^ {4}((?:make|curl|pip|uv|uvx|python -m|\.venv/bin/\S+|\.ci/[\w.]+)\b.*)$", re.MULTILINE
)
_COMMENT: Final = re.compile(r"(^|\s{2,})#.*")

HERE: Final = (
    r"make",
    r"\.venv/bin/python -m pytest service/tests/test_running\.py -k drain",
)
"""Run by `test_documents.py`, always."""

WITH_STACK: Final = (
    r"curl (-i )?(-H '[^']*' )?http://127\.0\.0\.1:8000/\S*",
    r"make (doctor|status|load-ui)",
    r"make logs PART=\w+",
    r"make verify SERVICE_URL=.*",
    r"python -m skywalking_background doctor( --query .*)?",
)
"""Run by `test_documents.py` where a stack is up on the usual ports: the stage `readme` of `.ci/run`."""

BY: Final = {
    r"make up( RUNTIME=native)?": "make up RUNTIME=native",
    r"make up IMAGES=local": "make up RUNTIME=compose IMAGES=local",
    r"make up (WORKERS|LOCUST_WORKERS)=\d": "LOCUST_WORKERS=2 WORKERS=2",
    r"make up SKYWALKING_UI=download": "stack/tests/test_skywalking_ui.py",
    r"SERVICE_PROFILING_ENABLED=true make up": "tests/test_console_tasks.py",
    r"make up BROKER_URL=amqp://…": "tests/test_broker_work.py",
    r"make up SERVICE_PORT=8001": "stack/tests/test_settings_sources.py",
    r"make (down|clean|verify|load|lint|coverage|package)": "make {0}",
    r"make load SCENARIO=burst USERS=1000": "make load SCENARIO=burst USERS=1000",
    r"make load SCENARIO=(|\w+)": "tests/test_load.py",
    r"make load PROCESSES=2": "tests/test_load.py",
    r"make report( QUICK=1)?": "make report QUICK=1",
    r"make test(-unit|-end-to-end)?( .*)?": "make test",
    r"make (compare|crash)( .*)?": "tests/test_crash.py",
    r"make incident( .*)?": "tests/test_incidents.py",
    r"\.ci/run": ".ci/run",
}
"""Run elsewhere: a stage of `.ci/run`, named by a part of its line, or a file of tests."""

NOT_RUN: Final = {
    r"make screenshots": "it writes pictures into docs/, which the author looks at before they are committed",
    r"curl -X (PUT|DELETE) .*/faults.*": "it would break what is run after it; the fault board has tests of its own",
    r"make fmt": "it changes files; `make lint` fails where it would",
    r"make bench( .*)?": "25 minutes on a quiet machine; its parts have tests in bench/ where they have logic",
    r"make mutants( .*)?": "hours; one module proves nothing about a document",
    r"make up (STORAGE|UI)=.*": "official images can't be pulled here; the Compose files say what was run otherwise",
    r"make up SKYWALKING_UI=<.*>": "a place holder",
    r"SERVICE_MAX_RUNNING=30000 make up RUNTIME=native": "how a table was measured; without the number CI runs it",
    r"\.venv/bin/python bench/.*": "how a table was measured: minutes on a quiet machine",
    r"\.venv/bin/python -m oap_embedded run .* &": "every test session starts OAP so, on ports of its own",
    r"export TEST_OAP_URL=.*": "no command by itself",
    r"python -m oap_embedded lock": "it needs Maven, and changes a file",
    r"pip install .*": "tests/test_published.py installs the built wheel; the name is not on an index that CI may fill",
    r"uv add skywalking-background": "the same",
    r"uv version --package .*": "a release",
    r"uvx pre-commit install": "it changes the developer's git hooks; `make lint` is what they run",
    r"helm .*": "it needs a cluster",
    r"(LOAD_SCENARIO=parallel )?locust -f loadtest/locustfile\.py .*": "several machines; test_load.py has both roles",
    r"docs/upstream-last-ping\.md: a script": "four waits of 40 s; tests/test_last_ping.py looks at the same",
}
"""Run by nobody, with the reason."""


class Command(NamedTuple):
    """A command, and the document that has it."""

    document: str
    text: str


def commands() -> list[Command]:
    """Return every command of every document, each once for each document."""
    found: dict[Command, None] = {}
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            if name.startswith("."):
                continue
            for text in _of(name, path.read_text()):
                found[Command(name, text)] = None
    return list(found)


def _of(name: str, text: str) -> list[str]:
    found: list[str] = []
    for language, block in _BLOCK.findall(text):
        if language not in _SHELL:
            continue
        if block.startswith("#!"):
            found.append(f"{name}: a script")
            continue
        lines = block.replace("\\\n", " ").splitlines()
        found += [line for one in lines if (line := _COMMENT.sub("", one).strip())]
    prose = _BLOCK.sub("", text).replace("\\\n", " ")
    found += [_COMMENT.sub("", line).strip() for line in _INDENTED.findall(prose)]
    return found + _INLINE.findall(prose)


def place_of(command: str) -> list[str]:
    """Return the tables that name a command, each as `here`, `stack`, `by …` or `not run: …`."""
    found = ["here" for pattern in HERE if re.fullmatch(pattern, command)]
    found += ["stack" for pattern in WITH_STACK if re.fullmatch(pattern, command)]
    found += [f"by {place.format(*_groups(one))}" for one, place in _matches(BY, command)]
    return found + [f"not run: {reason}" for _, reason in _matches(NOT_RUN, command)]


def _groups(one: re.Match[str]) -> list[str]:
    return [group or "" for group in one.groups()]


def _matches(table: dict[str, str], command: str) -> list[tuple[re.Match[str], str]]:
    return [(one, text) for pattern, text in table.items() if (one := re.fullmatch(pattern, command))]
