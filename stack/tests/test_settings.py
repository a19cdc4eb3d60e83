from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stack.runtime.native.parts import native_parts
from stack.settings import Settings, UsageError, load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SERVICE_PORT", "abc", "SERVICE_PORT='abc'"),
        ("SERVICE_PORT", "0", "SERVICE_PORT='0'"),
        ("OAP_HTTP_PORT", "70000", "OAP_HTTP_PORT='70000'"),
        ("SERVICE_PORT", "12800", "SERVICE_PORT and OAP_HTTP_PORT can't both be 12800"),
        ("RUNTIME", "cloud", "RUNTIME='cloud'"),
        ("OAP_HEAP", "lots", "OAP_HEAP='lots'"),
        ("OAP_HEAP", "255m", "OAP_HEAP='255m' is too small: OAP needs 256m"),
        ("BROKER_URL", "kafka://u:secret@host", "BROKER_URL='…' is not valid: it must begin with one of redis://"),
        ("WORKER_PORT", "8099", "CONSUMER_PORT and WORKER_PORT can't both be 8100"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv("WORKERS", "2")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        load_settings()


def test_names_that_are_allowed_reach_every_part(tmp_path: Path) -> None:
    found = native_parts(Settings(run_dir=tmp_path, allowed_hosts="stack.example"))
    given = {part.name: [value for key, value in part.environment.items() if "ALLOWED_HOSTS" in key] for part in found}
    assert given == {
        "oap": [],
        "broker": [],
        "service": ["stack.example"],
        "worker": [],
        "consumer": [],
        "console": ["stack.example"],
        "loadtest": ["stack.example"],
    }
    without = native_parts(Settings(run_dir=tmp_path, allowed_hosts=""))
    assert not [key for part in without for key in part.environment if "ALLOWED_HOSTS" in key]
