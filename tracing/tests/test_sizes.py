"""How large things may become: the two settings, and what a cut text looks like."""

from __future__ import annotations

import pytest
from skywalking_background._limits import _number, _seconds, cut, cut_middle


def test_a_number_is_the_default_until_the_variable_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPANS", raising=False)
    assert _number("SPANS", 300) == 300
    monkeypatch.setenv("SPANS", "")
    assert _number("SPANS", 300) == 300
    monkeypatch.setenv("SPANS", "1")
    assert _number("SPANS", 300) == 1


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "many", " "])
def test_what_is_no_number_above_0_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SPANS", text)
    with pytest.raises(ValueError, match="SPANS") as caught:
        _number("SPANS", 300)
    assert str(caught.value) == f"SPANS={text!r} is not a whole number above 0"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 2.0),
        ("", 2.0),
        ("0", 0.0),
        (" 1.5 ", 1.5),
        (" OFF", None),
        *((word, None) for word in ("off", "false", "no", "never")),
    ],
)
def test_seconds_may_be_none_at_all(monkeypatch: pytest.MonkeyPatch, text: str | None, seconds: float | None) -> None:
    monkeypatch.delenv("PERIOD", raising=False)
    if text is not None:
        monkeypatch.setenv("PERIOD", text)
    assert _seconds("PERIOD", 2) == seconds


@pytest.mark.parametrize("text", ["-1", "-0.5", "inf", "nan", "soon"])
def test_what_is_no_time_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PERIOD", text)
    with pytest.raises(ValueError, match="PERIOD") as caught:
        _seconds("PERIOD", 2)
    assert str(caught.value) == f"PERIOD={text!r} is neither a number of seconds nor off"


def test_a_text_is_cut_behind_its_limit_and_says_how_much_is_missing() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 2_011, 10) == "xxxxxxxxxx… (2,001 characters more)"


def test_a_text_can_keep_both_of_its_ends() -> None:
    assert cut_middle("a" * 10, 10) == "a" * 10
    assert cut_middle("a" * 1_000 + "b" * 1_011, 10) == "aaaaa\n… (2,001 characters more) …\nbbbbb"
    assert cut_middle("abcdefgh", 7) == "abc\n… (2 characters more) …\nfgh"
