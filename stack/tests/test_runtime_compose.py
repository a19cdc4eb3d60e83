"""Which runtime is meant, what Compose is told, and what is said where Docker can't be used.

`docker` is a small script here; `.ci/run` brings the same code up against a real engine.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import yaml
from argon2 import PasswordHasher
from pydantic import SecretStr
from stack.runtime import ComposeRuntime, EngineError, NativeRuntime, choose_runtime, current_runtime, passwords
from stack.runtime.compose import containers
from stack.runtime.compose.project import Project
from stack.runtime.engine import check_engine
from stack.runtime.run_dir import prepare
from stack.settings import ROOT, Settings, UsageError, load_settings, recorded_runtime
from standins import web_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stack.runtime.native.parts import Part

WORKS = 'case "$*" in version*) echo 28.0 ;; "compose version"*) echo 5.6.0 ;; esac'


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let `docker` be this shell script; the only program there is, beside the shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def be(script: str) -> None:
        program = folder / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return be


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "Got permission denied while trying to connect" >&2; exit 1', "usermod -aG docker"),
        ('echo "Cannot connect to the Docker daemon" >&2; exit 1', "no Docker engine answers (Cannot connect"),
        ('case "$1" in version) echo 28.0 ;; *) exit 1 ;; esac', "Docker has no Compose here"),
        (None, "Docker is not installed"),
    ],
)
def test_what_docker_lacks_is_one_sentence_with_the_way_out(
    docker: Callable[[str], None], script: str | None, words: str
) -> None:
    if script:
        docker(script)
    with pytest.raises(EngineError) as error:
        check_engine()
    assert words in str(error.value)
    assert str(error.value).endswith("or run the stack without Docker: `make up RUNTIME=native`")
    assert "\n" not in str(error.value)


def test_images_that_cannot_be_pulled_are_one_sentence_with_the_ways_out(
    settings: Settings, docker: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker(
        WORKS + '\ncase "$*" in *config*) echo \'{"services": {}}\' ;; *pull*) echo "no such host" >&2; exit 1 ;; esac'
    )
    settings.runtime = "compose"
    assert ComposeRuntime(settings).up() == 1
    out = capsys.readouterr().out
    assert "the images can't be pulled (no such host)" in out
    assert "`make up IMAGES=local`, or run the stack without Docker: `make up RUNTIME=native`" in out


def test_auto_takes_compose_where_an_engine_answers(settings: Settings, docker: Callable[[str], None]) -> None:
    docker(WORKS)
    assert isinstance(choose_runtime(settings, None), ComposeRuntime)
    assert settings.runtime == "compose"


def test_auto_runs_without_docker_elsewhere_and_says_why(
    settings: Settings, docker: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(choose_runtime(settings, None), NativeRuntime)
    assert "running without Docker: Docker is not installed" in capsys.readouterr().out
    settings.runtime = "compose"
    with pytest.raises(EngineError):
        choose_runtime(settings, None)


def test_what_runs_natively_stays_native(
    settings: Settings, use_parts: Callable[..., list[Part]], docker: Callable[[str], None]
) -> None:
    use_parts(web_part(settings))
    settings.runtime = "native"
    assert NativeRuntime(settings).up() == 0
    docker(WORKS)
    settings.runtime = "auto"
    assert isinstance(choose_runtime(settings, "native"), NativeRuntime)
    settings.runtime = "compose"
    with pytest.raises(UsageError, match="the stack runs with RUNTIME=native: end it with `make down`"):
        choose_runtime(settings, "native")


def test_later_commands_mean_the_runtime_that_was_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.runtime = "compose"
    prepare(settings.run_dir)
    settings.write_record()
    monkeypatch.setenv("RUNTIME", "native")
    assert recorded_runtime(Settings()) == "compose"
    found = load_settings(running=True)
    assert isinstance(current_runtime(found), ComposeRuntime)
    assert isinstance(current_runtime(load_settings()), NativeRuntime)


def test_compose_is_told_what_the_settings_say(settings: Settings, docker: Callable[[str], None]) -> None:
    docker(WORKS)
    plain = Project(settings)
    assert [word for word in plain.words if word.endswith(".yaml")] == [str(ROOT / "compose.yaml")]
    assert plain.scale == []
    assert plain.environment["SERVICE_PORT"] == str(settings.service_port)
    assert "OAP_HEAP" not in plain.environment, "each image has a default of its own"
    settings.storage, settings.locust_workers, settings.ui = "postgresql", 4, "horizon"
    other = Project(settings)
    assert other.words[-7:] == [
        str(ROOT / "compose.horizon.yaml"),
        *["--profile", "postgresql", "--profile", "queue", "--profile", "scale"],
    ]
    assert other.scale == ["--scale", "banyandb=0", "--scale", "loadtest-worker=4"]
    assert other.environment["LOCUST_MASTER"] == "true"


@pytest.mark.parametrize(
    ("given", "profile", "environment"),
    [
        (None, ["queue"], "amqp://demo:made@rabbitmq:5672//"),
        ("amqp://me:mine@host//", ["worker"], "amqp://me:mine@host//"),
        ("off", [], ""),
    ],
)
def test_compose_brings_a_broker_unless_one_is_given_or_none_is_wanted(
    settings: Settings, docker: Callable[[str], None], given: str | None, profile: list[str], environment: str
) -> None:
    docker(WORKS)
    settings.runtime, settings.workers = "compose", 3
    settings.broker_url = SecretStr(given) if given else None
    assert passwords.make_missing(settings) == ([] if given else ["RABBITMQ_PASSWORD"])
    if not given:
        passwords.file_of(settings).write_text('{"RABBITMQ_PASSWORD": "made"}')
    project = Project(settings)
    assert [name for word, name in pairwise(project.words) if word == "--profile"] == profile
    assert project.environment["BROKER_URL"] == environment
    assert ("worker=3" in project.scale) is bool(profile)


def test_local_images_come_with_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES", "local")
    assert load_settings().storage == "postgresql"
    monkeypatch.setenv("UI", "horizon")
    with pytest.raises(UsageError, match="leave it out for UI=horizon"):
        load_settings()


def test_passwords_are_made_once_for_their_owner_only(settings: Settings) -> None:
    settings.storage, settings.ui = "postgresql", "horizon"
    assert passwords.make_missing(settings) == ["POSTGRES_PASSWORD", "HORIZON_AUTH_LOCAL_USERS"]
    made = passwords.load(settings)
    assert stat.S_IMODE(passwords.file_of(settings).stat().st_mode) == 0o600
    (user,) = json.loads(made["HORIZON_AUTH_LOCAL_USERS"])
    assert user["passwordHash"].startswith("$argon2id$")
    assert PasswordHasher().verify(user["passwordHash"], made["HORIZON_PASSWORD"])
    assert passwords.make_missing(settings) == []
    assert passwords.load(settings) == made


def test_the_login_of_horizon_needs_an_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)  # as if it were not installed
    settings.ui = "horizon"
    with pytest.raises(UsageError, match="UI=horizon needs the extra `horizon`: pip install argon2-cffi"):
        passwords.make_missing(settings)
    assert not passwords.file_of(settings).exists()


def test_a_password_of_ones_own_is_taken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, docker: Callable[[str], None]
) -> None:
    settings.storage = "postgresql"
    assert passwords.make_missing(settings) == ["POSTGRES_PASSWORD"]
    monkeypatch.setenv("POSTGRES_PASSWORD", "mine")
    own = Settings(storage="postgresql")
    assert passwords.make_missing(own) == []
    docker(WORKS)
    assert "POSTGRES_PASSWORD" in Project(settings).environment
    assert "POSTGRES_PASSWORD" not in Project(own).environment
    own.write_record()
    assert "mine" not in own.record.read_text()


@pytest.mark.parametrize(("text", "size"), [("397.5MiB", 416_808_960), ("0B", 0), ("1.25GiB", 1_342_177_280)])
def test_sizes_are_read_as_docker_writes_them(text: str, size: int) -> None:
    assert containers.parse_bytes(text) == size


def test_oap_in_compose_gets_our_configuration_with_what_the_settings_say(tmp_path: Path) -> None:
    script = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["oap"]["entrypoint"][2].replace("$$", "$")
    image, mounted = tmp_path / "skywalking", ROOT / "oap" / "config"
    (image / "config").mkdir(parents=True)
    (image / "config" / "application.yml").touch()
    (image / "docker-entrypoint.sh").touch()
    script = script.replace("/skywalking/our-config", str(mounted)).replace("/skywalking", str(image))
    given = {"CONSOLE_URL": "http://127.0.0.1:9000", "ALARM_SECRET": "secret", "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=given, check=True)
    (board,) = json.loads((tmp_path / "config/ui-initialized-templates/general/background-tasks.json").read_text())
    (link,) = (each["graph"] for each in board["configuration"]["children"] if each["type"] == "Text")
    assert link["url"] == "http://127.0.0.1:9000"
    hook = yaml.safe_load((tmp_path / "config" / "alarm-settings.yml").read_text())["hooks"]["webhook"]["background"]
    assert (hook["urls"], hook["headers"]) == (["http://service:8000/alarms"], {"Authorization": "Bearer secret"})
    assert (tmp_path / "config" / "application.yml").exists()
