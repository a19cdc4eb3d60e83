"""The small parts by themselves."""

from __future__ import annotations

import pytest
from demo_service.dead_letters import Redactor, describe
from demo_service.http import MAX_DEPTH, check_json
from demo_service.tasks import Fault, parse_fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("error", Fault("error")),
        ("error;times=2", Fault("error", times=2)),
        ("delay=500ms", Fault("delay", seconds=0.5)),
        ("delay=9999ms", Fault("delay", seconds=9.999)),
        ("delay=1.5s", Fault("delay", seconds=1.5)),
        ("delay=59.999s", Fault("delay", seconds=59.999)),
        ("hang", Fault("hang")),
        ("exit", Fault("exit")),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


def test_json_may_be_nested_up_to_the_limit() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    check_json(value)
    with pytest.raises(ValueError, match="deep"):
        check_json([value])


@pytest.mark.parametrize("name", ["password", "PASSWORD", "db_password", "X-Api-Key", "apiKey", "accessToken"])
def test_a_secret_is_known_by_its_name(name: str) -> None:
    redactor = Redactor(["password", "api_key", "token"])
    assert redactor.kept({name: "x", "plain": 1}, 100) == ('{"' + name + '": "[redacted]", "plain": 1}', False)


def test_an_error_without_a_secret_stays_what_it_is() -> None:
    error = ValueError("nothing to see")
    assert Redactor(["token"]).error(error, {"token": "abcd"}) is error


@pytest.mark.parametrize(
    "error",
    [OSError(2, "no abcd"), KeyError("abcd"), UnicodeDecodeError("utf-8", b"abcd", 0, 1, "abcd"), ValueError("abcd")],
    ids=lambda error: type(error).__name__,
)
def test_a_redacted_error_is_still_of_its_kind(error: Exception) -> None:
    clean = Redactor(["token"]).error(error, {"data": {"token": ["abcd"]}})
    assert isinstance(clean, type(error))
    assert type(clean).__name__ == type(error).__name__
    assert "abcd" not in str(clean)
    assert "[redacted]" in str(clean)


def test_the_description_of_an_error_fits_into_json_and_a_database() -> None:
    text = describe(ValueError("\0\ud800" + "x" * 5000))
    assert text.startswith("ValueError: \\0\\ud800xx")
    assert len(text) == 1000
