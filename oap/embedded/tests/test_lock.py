"""The lock says which jars OAP is."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from oap_embedded import Jar, _lock, read_lock

LINE = re.compile(r"[0-9a-f]{64} [1-9][0-9]* [\w.-]+:[\w.-]+:[\w.-]+(:[\w.-]+)?")


def test_every_line_of_the_lock_is_a_jar():
    lines = files("oap_embedded").joinpath("jars.lock").read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert any("python -m oap_embedded lock" in line for line in header)
    bad = [line for line in lines[len(header) :] if not LINE.fullmatch(line)]
    assert not bad
    assert len(read_lock()) == len(lines) - len(header) > 100


def test_no_two_jars_share_a_file_and_they_are_sorted():
    jars = read_lock()
    assert len({jar.name for jar in jars}) == len(jars)
    assert [jar.coordinates for jar in jars] == sorted(jar.coordinates for jar in jars)


def test_oap_and_its_storage_are_in_the_lock():
    found = {":".join(jar.coordinates.split(":")[1:3]) for jar in read_lock()}
    assert {"server-starter:10.1.0", "storage-jdbc-hikaricp-plugin:10.1.0", "h2:2.4.240"} <= found


def test_what_nothing_here_can_use_is_not_in_the_lock():
    assert not [jar.coordinates for jar in read_lock() if _lock._LEFT_OUT.match(jar.coordinates)]
    for needed in ("cluster-standalone-plugin", "configuration-api", "skywalking-trace-receiver-plugin", "server-core"):
        assert not _lock._LEFT_OUT.match(f"org.apache.skywalking:{needed}:10.1.0")


@pytest.mark.parametrize(
    ("coordinates", "path"),
    [
        ("org.demo.sub:a-b:1.0", "org/demo/sub/a-b/1.0/a-b-1.0.jar"),
        ("io.netty:x:4.1.Final:linux-x86_64", "io/netty/x/4.1.Final/x-4.1.Final-linux-x86_64.jar"),
    ],
)
def test_coordinates_tell_where_a_repository_has_the_jar(coordinates, path):
    assert Jar("0" * 64, 1, coordinates).path == path
