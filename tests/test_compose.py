"""The Compose files, as `docker compose` itself understands them; no engine is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from typing import Any

import pytest
from harness import ROOT
from stack.settings import SECRETS, Settings

FILES = sorted(path.name for path in ROOT.glob("compose*.yaml"))
STACKS = {
    "official": ("compose.yaml",),
    "local": ("compose.yaml", "compose.local.yaml"),
    "horizon": ("compose.yaml", "compose.horizon.yaml"),
}
PROFILES = (
    *((), ("postgresql",), ("elasticsearch",), ("scale",), ("queue",), ("worker",)),
    *(("postgresql", "scale"), ("postgresql", "scale", "queue"), ("*",)),
)
VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?")


def docker_compose(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` with nothing set but what is given."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "DOCKER_CONFIG"}}
    command = ["docker", "compose", "--env-file", "/dev/null", *words]
    return subprocess.run(command, cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, check=False)


def configuration(*files: str, profiles: tuple[str, ...] = ("*",)) -> dict[str, Any]:
    words = [word for file in files for word in ("--file", file)]
    words += [word for profile in profiles for word in ("--profile", profile)]
    done = docker_compose(*words, "config", "--format", "json", HORIZON_AUTH_LOCAL_USERS="[]")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session", autouse=True)
def compose_is_there() -> None:
    """Skip aloud where there is no Compose; in CI that is a failure."""
    try:
        missing = docker_compose("version").returncode != 0
    except FileNotFoundError:
        missing = True
    if missing and not os.environ.get("CI"):
        pytest.skip("`docker compose` is not installed (no engine would be needed)")
    assert not missing, "CI installs Compose with .ci/engine"


@pytest.fixture(scope="session")
def stacks(compose_is_there: None) -> dict[str, dict[str, Any]]:
    """All services of each stack."""
    return {name: configuration(*files)["services"] for name, files in STACKS.items()}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("profiles", PROFILES, ids="+".join)
def test_the_files_are_valid_for_every_profile(stack: str, profiles: tuple[str, ...]) -> None:
    found = configuration(*STACKS[stack], profiles=profiles)["services"]
    assert {"oap", "service", "loadtest"} <= set(found)
    for profile in set(profiles) - {"*"}:
        assert {"postgresql", "elasticsearch", "loadtest-worker", "worker"} & set(found), profile


@pytest.mark.parametrize("stack", STACKS)
def test_every_image_is_pinned(stacks: dict[str, Any], stack: str) -> None:
    for service in stacks[stack].values():
        ours = r"background-tracing-stack/[\w-]+:local"  # built here, of this tree
        assert re.fullmatch(rf"{ours}|[\w./-]+:(horizon-)?\d+(\.\d+)*(-bookworm|-management)?", service["image"])


@pytest.mark.parametrize("stack", STACKS)
def test_every_published_port_is_on_loopback(stacks: dict[str, Any], stack: str) -> None:
    for name, service in stacks[stack].items():
        for port in service.get("ports", []):
            assert port.get("host_ip") == "127.0.0.1", f"{name}: {port}"


@pytest.mark.parametrize("stack", STACKS)
def test_every_service_is_watched_limited_and_without_rights(stacks: dict[str, Any], stack: str) -> None:
    for name, service in stacks[stack].items():
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert int(service["mem_limit"]) <= 1.5 * 2**30, name
        assert service["cap_drop"] == ["ALL"], name
        assert not {"cap_add", "privileged", "pid", "network_mode", "devices"} & service.keys(), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].partition(":")[0]) > 0, name
        assert service["init"] is True, name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service.get("read_only", False) is (name != "elasticsearch"), name


@pytest.mark.parametrize("storage", ["banyandb", "postgresql", "elasticsearch"])
def test_storage_is_on_a_named_volume_and_awaited(stacks: dict[str, Any], storage: str) -> None:
    assert [volume["type"] for volume in stacks["official"][storage]["volumes"]] == ["volume"]
    waited = stacks["official"]["oap"]["depends_on"][storage]
    assert waited["condition"] == "service_healthy"


def test_local_images_are_built_and_never_pulled() -> None:
    found = configuration(*STACKS["local"], profiles=())["services"]
    assert all("build" in service for service in found.values())
    assert found.keys() == {"oap", "postgresql", "service", "console", "loadtest"}


def test_horizon_without_a_login_stops_and_says_how_to_make_one() -> None:
    done = docker_compose("-f", "compose.yaml", "-f", "compose.horizon.yaml", "config")
    assert done.returncode != 0
    assert "`make up UI=horizon` makes one" in done.stderr


def test_locust_is_the_one_of_the_lock() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    version = next(package["version"] for package in locked if package["name"] == "locust")
    for stack, image in (("official", "locustio/locust"), ("local", "background-tracing-stack/locust")):
        assert configuration(*STACKS[stack])["services"]["loadtest"]["image"] == f"{image}:{version}"


def documented() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"# [A-Z_]+=", line))


@pytest.mark.parametrize("file", FILES)
def test_every_variable_is_documented_with_its_default(file: str) -> None:
    asked = VARIABLE.findall((ROOT / file).read_text())
    assert asked
    for name, default in asked:
        assert name in documented(), f"{name} is not in .env.example"
        if file == "compose.yaml":
            assert documented()[name] == default


def test_make_and_compose_have_the_same_defaults() -> None:
    for name, value in Settings(_env_file=None).model_dump(exclude={"oap_heap", "run_dir", *SECRETS}).items():
        assert documented()[name.upper()] == str(value)
