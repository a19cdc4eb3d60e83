"""The doctor's way from one check to the next; what a check finds out is `test_probe`'s."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from skywalking import config
from skywalking_background import __main__, _doctor, _probe, _protocol
from skywalking_background._doctor import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine on which every check goes well, and no agent is started."""
    for name in ("SKYWALKING_BACKGROUND_ENABLED", "http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SW_AGENT_NAME", "shop")
    monkeypatch.setattr(config, "agent_name", "shop")
    monkeypatch.setattr(config, "agent_protocol", "grpc")
    monkeypatch.setattr(config, "agent_collector_backend_services", "oap:11800")
    monkeypatch.setattr(config, "agent_disable_plugins", ["sw_fastapi"])
    monkeypatch.setattr(_doctor, "start", lambda: None)
    monkeypatch.setattr(_doctor, "flush", lambda _seconds: True)
    monkeypatch.setattr(_doctor, "current_trace_id", lambda: "the-id")
    monkeypatch.setattr(_probe, "connect", lambda *_: "")
    monkeypatch.setattr(_probe, "speaks", lambda *_, tls: "")  # noqa: ARG005
    monkeypatch.setattr(_probe, "collects", lambda *_, **_options: "")
    monkeypatch.setattr(_probe, "stored", lambda *_: "")
    loggers = [logging.getLogger(name) for name in ("skywalking", "skywalking_background")]
    levels = [logger.level for logger in loggers]
    yield monkeypatch
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_segments(segments: list[Any]) -> None:
    """What the doctor finishes goes into a list."""


def found(query: str = "") -> dict[str, Check]:
    return {check.name: check for check in _doctor.checks(query, 3)}


def test_all_is_well(healthy: pytest.MonkeyPatch) -> None:
    checks = found()
    assert [(name, check.good) for name, check in checks.items()] == [
        ("agent", True),
        ("plugin", True),
        ("name", True),
        ("OAP", True),
        ("fork", None),
        ("segment", None),
    ]
    assert checks["OAP"].text == "oap:11800 takes segments"
    assert checks["name"].text == "the service is called 'shop'"
    assert checks["agent"].text.startswith("apache-skywalking 1.3")
    assert checks["plugin"].text == "the agent's own FastAPI plugin is off, as it should be"
    assert checks["fork"].text == "not tried: with --query a forked child sends a segment"
    assert checks["segment"].text == "not tried: --query http://<OAP>:12800 sends one and reads it back"


@pytest.mark.parametrize(
    ("folder", "whose"),
    [("packed", "packed with this library, as the agent's wheel lacks it"), ("agent", "the agent's own")],
)
def test_whose_the_protocol_package_is(healthy: pytest.MonkeyPatch, folder: str, whose: str) -> None:
    import skywalking.protocol

    healthy.setattr(_doctor, "PACKED", Path("/packed"))
    healthy.setattr(skywalking.protocol, "__file__", f"/{folder}/protocol/__init__.py")
    assert found()["agent"].text.endswith(f"; skywalking.protocol is {whose}")


def test_nothing_but_the_checks_is_said(healthy: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def complain() -> None:
        logging.getLogger("skywalking").error("one")
        logging.getLogger("skywalking_background").error("two")

    healthy.setattr(_doctor, "start", complain)
    found()
    assert caplog.text == ""


def test_all_is_well_there_and_back(healthy: pytest.MonkeyPatch, segments: list[Any]) -> None:
    asked: list[object] = []
    healthy.setattr(_probe, "stored", lambda *arguments: asked.append(arguments) or "")
    checks = found("http://oap:12800")
    assert checks["fork"] == Check(
        "fork",
        True,
        "a forked child reports as well: gunicorn --preload and Celery's prefork pool work",
    )
    assert checks["segment"] == Check("segment", True, "sent and read back: trace the-id")
    assert asked == [("http://oap:12800", "the-id", 3)]
    assert [segment.spans[0].op for segment in segments] == ["skywalking_background doctor"]


@pytest.mark.parametrize("value", ["false", "False", "0", "no", "off"])
def test_switched_off(healthy: pytest.MonkeyPatch, value: str) -> None:
    healthy.setenv("SKYWALKING_BACKGROUND_ENABLED", value)
    assert list(found()) == ["agent", "switch"]
    assert found()["switch"] == Check(
        "switch",
        False,
        "SKYWALKING_BACKGROUND_ENABLED switches the library off: unset it",
    )


@pytest.mark.parametrize("value", ["true", "1", ""])
def test_switched_on(healthy: pytest.MonkeyPatch, value: str) -> None:
    healthy.setenv("SKYWALKING_BACKGROUND_ENABLED", value)
    assert "switch" not in found()


def test_start_fails(healthy: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        message = "start it otherwise"
        raise RuntimeError(message)

    healthy.setattr(_doctor, "start", refuse)
    checks = found()
    assert list(checks) == ["agent", "plugin", "name"]
    assert checks["plugin"] == Check("plugin", False, "start it otherwise")


def test_plugin_is_on(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(config, "agent_disable_plugins", [""])
    assert found()["plugin"] == Check(
        "plugin",
        False,
        "the agent's own FastAPI plugin is on: set SW_AGENT_DISABLE_PLUGINS=sw_fastapi",
    )


def test_no_name(healthy: pytest.MonkeyPatch) -> None:
    healthy.delenv("SW_AGENT_NAME")
    assert found()["name"] == Check(
        "name",
        False,
        "the service has no name, SkyWalking shows it as 'shop': set SW_AGENT_NAME",
    )


def test_another_protocol(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(config, "agent_protocol", "http")
    checks = found()
    assert list(checks) == ["agent", "plugin", "name", "OAP"]
    assert checks["OAP"] == Check("OAP", None, "SW_AGENT_PROTOCOL=http: only gRPC is looked at, so nothing more is")


@pytest.mark.parametrize("asked", ["connect", "speaks", "collects"])
def test_first_failure_on_the_way_to_oap_is_the_last_line(healthy: pytest.MonkeyPatch, asked: str) -> None:
    healthy.setattr(_probe, asked, lambda *_, **_options: "mend it")
    checks = found("http://oap:12800")
    assert list(checks)[-1] == "OAP"
    assert checks["OAP"] == Check("OAP", False, "mend it")


def test_address_is_malformed(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(config, "agent_collector_backend_services", "oap")
    assert "is no address" in found()["OAP"].text


def test_settings_are_those_of_the_agent(healthy: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    healthy.setattr(config, "agent_force_tls", True)
    healthy.setattr(config, "agent_authentication", "secret")
    healthy.setattr(_probe, "connect", lambda *place: asked.append(place) or "")
    healthy.setattr(_probe, "speaks", lambda *place, tls: asked.append((place, tls)) or "")
    healthy.setattr(_probe, "collects", lambda *place, **options: asked.append((place, options)) or "")
    assert found()["OAP"].good
    assert asked == [
        ("oap", 11800),
        (("oap", 11800), True),
        (("oap:11800",), {"tls": True, "authentication": "secret", "through_proxy": False}),
    ]


def through(answers: dict[bool, str]) -> Callable[..., str]:
    return lambda *_, through_proxy, **_options: answers[through_proxy]


def test_proxy_lets_grpc_pass(healthy: pytest.MonkeyPatch) -> None:
    healthy.setenv("http_proxy", "http://proxy:3128")
    healthy.setattr(_probe, "connect", lambda *_: "nobody listens")  # the proxy is the only way
    healthy.setattr(_probe, "collects", through({True: "", False: "no"}))
    assert found()["OAP"].good


def test_proxy_is_in_the_way(healthy: pytest.MonkeyPatch) -> None:
    healthy.setenv("http_proxy", "http://proxy:3128")
    healthy.setattr(_probe, "collects", through({True: "no", False: ""}))
    assert found()["OAP"].text == (
        "the proxy in http_proxy is between here and OAP and does not let gRPC pass: add 'oap' to no_proxy"
    )


def test_proxy_is_not_the_cause(healthy: pytest.MonkeyPatch) -> None:
    healthy.setenv("http_proxy", "http://proxy:3128")
    healthy.setattr(_probe, "collects", through({True: "no", False: "no"}))
    healthy.setattr(_probe, "connect", lambda *_: "nobody listens")
    assert found()["OAP"].text == "nobody listens; the proxy in http_proxy does not reach it either"


def test_sampling_leaves_the_segment_out(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(_doctor, "current_trace_id", lambda: None)
    assert found("http://oap:12800")["segment"] == Check(
        "segment",
        False,
        "the agent's sampling left it out: try again, or unset SW_SAMPLE_N_PER_3_SECS",
    )


def test_segment_is_not_taken(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(_doctor, "flush", lambda _seconds: False)
    checks = found("http://oap:12800")
    assert checks["segment"] == Check(
        "segment",
        False,
        "OAP did not take the test segment: look into OAP's own log",
    )
    assert checks["fork"].good is False
    assert checks["fork"].text == (
        "a forked child can't report: start the work in new processes (gunicorn without --preload, "
        "multiprocessing's spawn), or unset SW_AGENT_EXPERIMENTAL_FORK_SUPPORT if it is set"
    )


def test_segment_is_not_shown(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(_probe, "stored", lambda *_: "look there")
    assert found("http://oap:12800")["segment"] == Check("segment", False, "look there")


def test_child_that_hangs_is_ended(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(_doctor, "flush", lambda _seconds: time.sleep(60))
    healthy.setattr(_doctor, "FORK_SECONDS", 0.2)
    began = time.monotonic()
    assert _doctor._fork().good is False
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["raises", "dies"])
def test_child_that_fails(healthy: pytest.MonkeyPatch, how: str) -> None:
    def fail(_seconds: float) -> bool:
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)  # as gRPC's abort ends it, but silently
        raise ValueError

    healthy.setattr(_doctor, "flush", fail)
    assert _doctor._fork().good is False


def test_lines_and_exit_code(healthy: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["doctor"]) == 0
    healthy.setattr(_probe, "connect", lambda *_: "mend it")
    assert __main__.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "ok      OAP      oap:11800 takes segments"
    assert lines[4].startswith("-       fork     not tried")
    assert lines[-1] == "FAILED  OAP      mend it"


@pytest.mark.parametrize(
    ("found", "code"), [((True, None), 0), ((False, True), 1), ((False, False), 1), ((True, False, None), 1), ((), 0)]
)
def test_one_failure_is_enough(monkeypatch: pytest.MonkeyPatch, found: tuple[bool | None, ...], code: int) -> None:
    monkeypatch.setattr(_doctor, "checks", lambda *_: [_doctor.Check("OAP", good, "text") for good in found])
    assert __main__.main(["doctor"]) == code


def test_options_are_passed_on(healthy: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    healthy.setattr(_doctor, "checks", lambda *options: asked.append(options) or [])
    __main__.main(["doctor"])
    __main__.main(["doctor", "--query", "http://oap:12800", "--wait", "7.5"])
    assert asked == [("", 40.0), ("http://oap:12800", 7.5)]


def test_there_is_no_other_command() -> None:
    with pytest.raises(SystemExit):
        __main__.main([])


def import_beside(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with other packages before the installed ones."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """An agent without its protocol package."""
    (tmp_path / "skywalking").mkdir()
    (tmp_path / "skywalking" / "__init__.py").touch()
    return tmp_path


@pytest.fixture
def nothing_packed() -> None:
    if _protocol.PACKED.exists():
        pytest.skip("this library was installed from its wheel, which brings the protocol package along")


@pytest.mark.usefixtures("nothing_packed")
def test_missing_protocol_package_is_one_sentence(broken: Path) -> None:
    done = import_beside(broken, "-c", "import skywalking_background")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: apache-skywalking is installed without its package `skywalking.protocol`: ")
    assert last.endswith(_protocol.MEND)


@pytest.mark.usefixtures("nothing_packed")
def test_doctor_says_the_same_without_a_traceback(broken: Path) -> None:
    done = import_beside(broken, "-m", "skywalking_background", "doctor")
    assert done.returncode == 1
    assert done.stdout == (
        f"FAILED  agent    apache-skywalking is installed without its package `skywalking.protocol`: {_protocol.MEND}\n"
    )
    assert done.stderr == ""


def test_protocol_package_that_does_not_fit(broken: Path) -> None:
    package = broken / "skywalking" / "protocol" / "language_agent"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()  # else a wheel's own, packed, is the one that is imported
    (package / "Tracing_pb2_grpc.py").write_text("raise RuntimeError('too old')")
    last = import_beside(broken, "-c", "import skywalking_background").stderr.splitlines()[-1]
    sentence = "the agent's protocol package does not fit what is installed beside it"
    assert last == f"ImportError: {sentence}: {_protocol.UPGRADE} (too old)"


def test_packed_files_are_used_where_the_agent_has_none(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed" / "protocol" / "language_agent"
    packed.mkdir(parents=True)
    (packed / "Tracing_pb2_grpc.py").write_text("PACKED = True")
    monkeypatch.syspath_prepend(broken)
    for name in [name for name in sys.modules if name.partition(".")[0] == "skywalking"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(_protocol, "PACKED", tmp_path / "packed")
    _protocol.add_protocol()
    _protocol.add_protocol()
    found = sys.modules["skywalking.protocol.language_agent.Tracing_pb2_grpc"]
    path = sys.modules["skywalking"].__path__
    for name in [name for name in sys.modules if name.partition(".")[0] == "skywalking"]:
        monkeypatch.delitem(sys.modules, name)
    assert found.PACKED
    assert list(path).count(str(tmp_path / "packed")) == 1


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["--help"], ["doctor", "--help"]):
        with pytest.raises(SystemExit) as ended:
            __main__.main(arguments)
        assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m skywalking_background [-h] {doctor} ...")
    assert "`python -m skywalking_background doctor`." in text
    assert "    doctor    say why SkyWalking shows nothing, and what to do about it\n" in text
    assert "usage: python -m skywalking_background doctor [-h] [--query QUERY] [--wait WAIT]" in text
    assert "OAP's HTTP address: send a test segment and read it back from there\n" in text
    assert "seconds that OAP may take to show it (default: 40)\n" in text


def test_a_command_is_required_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        __main__.main([])
    assert ended.value.code == 2
    assert "the following arguments are required: command" in capsys.readouterr().err


def test_each_line_goes_out_as_soon_as_it_is_known(healthy: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []

    class Out(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue().count("\n"))

    healthy.setattr(sys, "stdout", Out())
    healthy.setattr(_doctor, "checks", lambda *_: [Check("one", True, "a"), Check("two", None, "b")])
    assert __main__.main(["doctor"]) == 0
    assert flushed == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "original", "expected"),
    [
        (["x", "doctor"], ["python", "-m", "skywalking_background", "doctor"], True),
        (["x"], ["python", "-m", "skywalking_background"], False),
        (["x", "doctor"], ["python", "skywalking_background", "doctor"], False),
        (["x", "doctor"], ["python", "-m", "other", "doctor"], False),
    ],
)
def test_the_doctor_is_told_by_its_command(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], original: list[str], expected: bool
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert _protocol._is_doctor() is expected


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ModuleNotFoundError("no", name="skywalking.protocol"),
            f"apache-skywalking is installed without its package `skywalking.protocol`: {_protocol.MEND}",
        ),
        (
            TypeError("too old"),
            f"the agent's protocol package does not fit what is installed beside it: {_protocol.UPGRADE} (too old)",
        ),
    ],
)
def test_a_protocol_package_that_is_of_no_use_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def import_module(name: str) -> SimpleNamespace:
        if name == "skywalking":
            return SimpleNamespace(__path__=[])
        raise error

    monkeypatch.setattr(_protocol.importlib, "import_module", import_module)
    with pytest.raises(ImportError) as caught:
        _protocol.add_protocol()
    assert str(caught.value) == sentence
    assert caught.value.__cause__ is error
