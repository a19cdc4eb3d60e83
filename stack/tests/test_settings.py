from __future__ import annotations

import pytest
from stack._settings import UsageError, load_settings


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SERVICE_PORT", "abc", "SERVICE_PORT='abc'"),
        ("SERVICE_PORT", "0", "SERVICE_PORT='0'"),
        ("OAP_HTTP_PORT", "70000", "OAP_HTTP_PORT='70000'"),
        ("SERVICE_PORT", "12800", "SERVICE_PORT and OAP_HTTP_PORT can't both be 12800"),
        ("RUNTIME", "cloud", "RUNTIME='cloud'"),
        ("OAP_HEAP", "lots", "OAP_HEAP='lots'"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        load_settings()
