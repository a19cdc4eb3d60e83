"""`JSON=1`: one document on standard output and nothing else, with the exit codes of always."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness import free_port
from stack.document import json_only
from stack.runtime import NativeRuntime
from stack.runtime.protocol import NOT_RUNNING
from standins import web_part

from stack import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.runtime.native.parts import Part
    from stack.settings import Settings


@pytest.fixture
def run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, str]]:
    """Run a command with `--json`: its exit code, its document, and what went to standard error."""
    monkeypatch.setattr(commands, "load_settings", lambda **_: settings)

    def run(*words: str) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["stack", *words, "--json"])
        capfd.readouterr()
        code = commands.main()
        out, err = capfd.readouterr()
        document = json.loads(out)
        assert out.count("\n") == 1
        assert document["exit_code"] == code
        return code, document, err

    return run


def test_status_has_each_part(
    run: Callable[..., tuple[int, Any, str]], settings: Settings, use_parts: Callable[..., list[Part]]
) -> None:
    use_parts(web_part(settings), web_part(settings, "loadtest", on_demand=True))
    code, document, err = run("status")
    assert (code, document["up"], document["parts"]) == (NOT_RUNNING, False, [])
    assert "`make up` starts it" in err
    assert NativeRuntime(settings).up() == 0
    code, document, _ = run("status")
    service, loadtest = document["parts"]
    assert (code, document["up"], document["healthy"], document["runtime"]) == (0, True, True, "native")
    assert service["pid"] == NativeRuntime(settings).pids()["service"]
    assert service["state"] in {"starting", "running"}  # supervisord's word for its first second
    assert (service["healthy"], service["problem"], service["restarts"]) == (True, "", 0)
    assert document["memory_mb"] == service["memory_mb"] > 0
    assert (loadtest["state"], loadtest["healthy"], loadtest["pid"]) == ("on demand", False, None)


def test_doctor_has_each_check_with_its_advice(
    run: Callable[..., tuple[int, Any, str]], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, document, _ = run("doctor")
    assert code == (0 if document["fine"] else 1)
    assert {"Python", "Java", "loopback", "broker"} <= {check["name"] for check in document["checks"]}
    monkeypatch.setattr(settings, "run_dir", settings.run_dir.parent / "a\\b")
    code, document, err = run("doctor")
    (check,) = [check for check in document["checks"] if check["name"] == "run folder"]
    assert (code, document["fine"], check["fine"]) == (1, False, False)
    assert check["advice"] in " ".join(err.split())


def test_what_can_not_be_done_is_in_the_document_too(
    run: Callable[..., tuple[int, Any, str]], settings: Settings
) -> None:
    code, document, err = run("load", "--scenario", "none")
    assert code == 2
    assert document["error"].startswith("there is no scenario 'none'")
    assert document["error"] in err
    code, document, _ = run("load", "--users", "many")
    assert (code, document["error"]) == (2, "argument --users: 'many' is not a whole number from 1 on")
    code, document, _ = run("load", "--scenario", "list")
    assert "smoke" in document["scenarios"]
    code, document, _ = run("load")
    assert (code, document["error"]) == (1, f"OAP at {settings.oap_url} does not answer")
    code, document, _ = run("verify")
    assert code == 1
    assert document["error"].startswith("not verified: ")
    code, document, _ = run("verify", "--oap-url", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "OAP_URL" in document["error"]


def test_what_children_print_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with json_only({"p99_ms": float("nan"), "name": "ü"}):
        subprocess.run(["echo", "from a child"], check=True)
        sys.stdout.write("from here\n")
    out, err = capfd.readouterr()
    assert json.loads(out) == {"p99_ms": None, "name": "ü"}
    assert err == "from a child\nfrom here\n"
