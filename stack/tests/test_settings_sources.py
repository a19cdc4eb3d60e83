"""`.env` as people's editors write it, and names as people spell them: refused with a reason, or honoured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from stack.runtime import choose_runtime
from stack.settings import Settings, UsageError, known_names, load_settings, loading, typing_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the repository be another folder, without a `.env` so far, and with an environment that is put back."""
    monkeypatch.setattr(loading, "ROOT", tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    before = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    "text",
    [
        "SERVICE_PORT=8123\r\nSERVICE_NAME='shop # 1; \"x\" 50%'\r\n",
        "\ufeffSERVICE_PORT=8123\nSERVICE_NAME='shop # 1; \"x\" 50%'",
        '# a comment\n\nexport SERVICE_PORT = 8123 # the port\nSERVICE_NAME="shop # 1; \\"x\\" 50%"\n',
    ],
)
def test_a_file_of_any_usual_kind_is_read(root: Path, text: str) -> None:
    (root / ".env").write_bytes(text.encode())
    found = load_settings()
    assert (found.service_port, found.service_name) == (8123, 'shop # 1; "x" 50%')


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("SERVICE_PORT=8123\n".encode("utf-16"), r"\.env is in UTF-16: save it as UTF-8"),
        ("SERVICE_PORT=8123\n".encode("utf-16-be"), r"has zero bytes in it, as UTF-16"),
        ("SERVICE_PORT=8123\n".encode("utf-32"), r"\.env is in UTF-32"),
        ("SERVICE_PORT=8123\nSERVICE_NAME=Bücher\n".encode("latin-1"), r"line 2, is not in UTF-8"),
        (b'SERVICE_PORT=8123\nSERVICE_NAME="shop\nCONSOLE_PORT=8124\n', r"line 2, can't be read: is a quote open"),
        (b"SERVICE_PORT=8123\r\n\r\nSERVICE_NAME='shop\r\n", r"line 3, can't be read: is a quote open"),
        (b"SERVICE_PORT\n", r"line 1: SERVICE_PORT has no value"),
        (b"SERVICE_PROT=8123\n", r"there is no variable SERVICE_PROT, did you mean SERVICE_PORT\?"),
        (b"service_prot=8123\n", r"there is no variable service_prot, did you mean SERVICE_PORT\?"),
        (b"SERVICE_MAX_RUNING=8\n", r"did you mean SERVICE_MAX_RUNNING\?"),
        (b"SERVICE_ZEBRAS=red\n", r"there is no variable SERVICE_ZEBRAS$"),
        (b"STORGE=banyandb\n", r"did you mean STORAGE\?"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(root: Path, raw: bytes, words: str) -> None:
    (root / ".env").write_bytes(raw)
    with pytest.raises(UsageError, match=words):
        load_settings()


def test_a_folder_in_the_place_of_the_file_is_called_so(root: Path) -> None:
    (root / ".env").mkdir()
    with pytest.raises(UsageError, match=r"\.env can't be read \(Is a directory\)"):
        load_settings()


def test_names_of_others_are_left_alone(root: Path) -> None:
    (root / ".env").write_text("COMPOSE_PROJECT_NAME=shop\nFOO=1\nSW_AGENT_SAMPLE=1\nno_proxy=x\nHTTPS_PROXY=y\n")
    load_settings()


def test_what_the_parts_and_the_downloads_read_is_passed_on_below_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["SERVICE_MAX_RUNNING=7", "CONSOLE_WORKER_NAME=w", "MAVEN_MIRROR_URL=http://m", "https_proxy=http://p"]
    (root / ".env").write_text("\n".join([*lines, "OAP_EMBEDDED_CACHE=/c", "SERVICE_PORT=8123", "POSTGRES_PASSWORD=x"]))
    monkeypatch.setenv("OAP_EMBEDDED_CACHE", "/mine")
    for name in ("SERVICE_PORT", "SERVICE_MAX_RUNNING", "MAVEN_MIRROR_URL", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    load_settings()
    assert os.environ["SERVICE_MAX_RUNNING"] == "7"
    assert os.environ["CONSOLE_WORKER_NAME"] == "w"
    assert os.environ["MAVEN_MIRROR_URL"] == "http://m"
    assert os.environ["https_proxy"] == "http://p"
    assert os.environ["OAP_EMBEDDED_CACHE"] == "/mine"
    assert "SERVICE_PORT" not in os.environ, "a part has a port of its own in this name"
    assert "POSTGRES_PASSWORD" not in os.environ


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (r" -- SERVICE_NAME=a\ b\ STORGE=1 SERVICE_PROT=8001", "make: there is no variable SERVICE_PROT"),
        ("-s --no-print-directory -- DURATON=5", "did you mean DURATION"),
        (r"w -- SERVICE_NAME=a\ b\ STORGE=1 USERS=5 CI=1", None),
        ("--jobserver-auth=3,4", None),
    ],
)
def test_the_command_line_is_looked_at_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, flags: str, words: str | None
) -> None:
    monkeypatch.setenv("MAKEFLAGS", flags)
    if words is None:
        load_settings()
        return
    with pytest.raises(UsageError, match=words):
        load_settings()


def test_a_slip_in_the_environment_is_told_and_not_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PROT", "8123")
    monkeypatch.setenv("SERVICE_ACCOUNT_JSON", "{}")  # somebody else's
    load_settings()
    known = known_names(Settings)
    assert typing_errors(known) == ["SERVICE_PROT is set, but there is no such variable: did you mean SERVICE_PORT?"]


@pytest.mark.parametrize(
    ("name", "value"), [("STORAGE", "postgresql"), ("STORAGE", "banyandb"), ("UI", "horizon"), ("IMAGES", "local")]
)
def test_what_needs_containers_is_refused_without_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("RUNTIME", "native")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}={value} needs RUNTIME=compose"):
        choose_runtime(load_settings(), None)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SERVICE_NAME", "x" * 71, "1 to 70 printable characters"),
        ("SERVICE_NAME", " shop", "no blank at either end"),
        ("SERVICE_NAME", "a\tb", "printable characters"),
        ("RUN_DIR", "~nobody-of-this-name/x", "RUN_DIR=.* can't be found"),
        ("RUN_DIR", "/tmp/a\nb", "RUN_DIR=.* can't be printed"),
    ],
)
def test_a_value_that_cannot_work_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        load_settings()
