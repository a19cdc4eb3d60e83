from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skywalking_background._internals import SegmentRef
from skywalking_background._sw8 import SuppressedError, parse


def header(*fields: str, sample: str = "1", span: str = "3") -> bytes:
    trace, segment, *rest = (base64.b64encode(field.encode()).decode() for field in fields)
    return "-".join([sample, trace, segment, span, *rest]).encode()


GOOD = ("trace", "segment", "shop", "shop-1", "HTTP GET /buy", "10.0.0.1:80")


def test_a_well_formed_header_gives_the_callers_position() -> None:
    caller = parse(header(*GOOD), b"a2V5:dmFsdWU=,aw==:dg==")
    assert caller is not None
    assert (caller.trace_id, caller.segment_id, caller.span_id) == ("trace", "segment", 3)
    assert (caller.service, caller.service_instance, caller.endpoint) == ("shop", "shop-1", "HTTP GET /buy")
    assert caller.correlation == {"key": "value", "k": "v"}


@pytest.mark.parametrize(
    "sw8",
    [
        b"",
        b"nonsense",
        b"1-a-b",
        header(*GOOD)[:-3] + b"%%%",
        header(*GOOD, span="-1"),
        header(*GOOD, span="x"),
        header(*GOOD, sample="2"),
        header("", *GOOD[1:]),
        header("tr\0ace", *GOOD[1:]),
        header("t" * 3000, *GOOD[1:]),
        b"1-" + base64.b64encode(b"\xff\xfe") + header(*GOOD)[len("1-dHJhY2U=") :],
    ],
)
def test_a_malformed_header_is_no_header(sw8: bytes) -> None:
    assert parse(sw8, b"") is None


def test_a_malformed_correlation_spoils_the_header() -> None:
    assert parse(header(*GOOD), b"no-colon") is None


@pytest.mark.parametrize("sw8", [b"1-------", header(*GOOD, sample="0")])
def test_a_caller_that_is_not_sampled_says_so(sw8: bytes) -> None:
    with pytest.raises(SuppressedError):
        parse(sw8, b"")


def encoded(data: bytes) -> bytes:
    return base64.b64encode(data)


def with_part(number: int, part: bytes) -> bytes:
    """Return the well-formed header with another part at that place."""
    parts = header(*GOOD).split(b"-")
    parts[number] = part
    return b"-".join(parts)


TRACE, SEGMENT, SPAN, SERVICE, INSTANCE, ENDPOINT, ADDRESS = range(1, 8)
IDS = (TRACE, SEGMENT)
NAMES = (SERVICE, INSTANCE, ENDPOINT, ADDRESS)


@pytest.mark.parametrize("place", IDS)
@pytest.mark.parametrize(
    "text",
    [b"", b"a\r\nSet-Cookie: x", b"a\nb", b"a\rb", b"a\0b", b"a\tb", b"a b", b" a", b"\x7f", b"\x1b[31m", b"\xff",
     "\u00e9".encode(), "\u0661".encode(), "\u2028".encode(), b"x" * 129],
)  # fmt: skip
def test_an_id_is_printable_ascii_or_the_header_is_ignored(place: int, text: bytes) -> None:
    assert parse(with_part(place, encoded(text)), b"") is None


@pytest.mark.parametrize("place", IDS)
@pytest.mark.parametrize("text", ["x", "x" * 128, "a-b.c_d/e+f=g", "~!"])
def test_an_id_may_be_anything_that_is(place: int, text: str) -> None:
    caller = parse(with_part(place, encoded(text.encode())), b"")
    assert caller is not None
    assert (caller.trace_id if place == TRACE else caller.segment_id) == text


@pytest.mark.parametrize(("span", "there"), [
    (b"0", True), (b"2147483647", True), (b"2147483648", False), (b"007", True), (b"", False), (b"+1", False),
    (b"1.0", False), (b"1e3", False), (b" 1", False), (b"1" * 30, False), (b"0x1", False),
])  # fmt: skip
def test_the_number_of_a_span_is_one_that_protobuf_can_write(span: bytes, there: bool) -> None:
    caller = parse(with_part(SPAN, span), b"")
    assert (caller is not None) == there
    assert caller is None or caller.span_id == int(span)


@pytest.mark.parametrize("place", NAMES)
@pytest.mark.parametrize("text", ["x", "x" * 512, "\u00e9", "\u65e5\u672c", "GET /a b", "{x}:80"])
def test_a_name_may_be_any_printable_text(place: int, text: str) -> None:
    caller = parse(with_part(place, encoded(text.encode())), b"")
    assert caller is not None
    names = (caller.service, caller.service_instance, caller.endpoint, caller.client_address)
    assert names[place - SERVICE] == text


@pytest.mark.parametrize("place", NAMES)
@pytest.mark.parametrize(
    "text", [b"", b"a\r\nb", b"a\nb", b"a\0", b"\x7f", b"\x1b[31m", b"\xff\xfe", "\u2028".encode(), b"x" * 513]
)
def test_a_name_without_control_characters_or_the_header_is_ignored(place: int, text: bytes) -> None:
    assert parse(with_part(place, encoded(text)), b"") is None


@pytest.mark.parametrize("version", [b"", b"2", b"01", b"11", b"-1", b"x"])
def test_a_version_that_nobody_knows_is_no_header(version: bytes) -> None:
    assert parse(with_part(0, version), b"") is None


@pytest.mark.parametrize("change", [lambda one: one + b"-eA==", lambda one: one.rpartition(b"-")[0]])
def test_a_header_has_eight_parts(change: Any) -> None:
    assert parse(change(header(*GOOD)), b"") is None


@pytest.mark.parametrize(("size", "there"), [(2048, True), (2049, False)])
def test_a_header_is_as_long_as_the_specification_says(size: int, there: bool) -> None:
    # Four names of 512 characters would be longer; base64 allows for no other length than this in between.
    parts = header(*GOOD).split(b"-")
    parts[4:] = [encoded(b"x" * 375)] * 3 + [b""]
    rest = size - len(b"-".join(parts))
    parts[7] = encoded(b"y" * (rest // 4 * 3))
    written = b"-".join(parts)
    padded = written.replace(b"-3-", b"-" + b"0" * (size - len(written)) + b"3-")
    assert len(padded) == size
    assert (parse(padded, b"") is not None) == there


@pytest.mark.parametrize("part", [b"dHJh Y2U=", b"dHJhY2U", b"dHJhY2U==", b"dHJh\nY2U=", b"%%%%", b"dHJhY2U=\r\n"])
def test_base64_is_exact(part: bytes) -> None:
    assert parse(with_part(TRACE, part), b"") is None


@pytest.mark.parametrize(
    ("correlation", "values"),
    [
        (b"", {}),
        (b"aw==:dg==", {"k": "v"}),
        (b"aw==:", {"k": ""}),
        (b"aw==:dg==,bA==:dw==", {"k": "v", "l": "w"}),
        (b"aw==:" + encoded(b"x" * 512), {"k": "x" * 512}),
    ],
)
def test_a_correlation_is_pairs(correlation: bytes, values: dict[str, str]) -> None:
    caller = parse(header(*GOOD), correlation)
    assert caller is not None
    assert caller.correlation == values


@pytest.mark.parametrize(
    "correlation",
    [b":dg==", b"aw==", b"aw==:dg==:dg==", b"aw==:dg==,", b"aw==:%%%", b"aw==:" + encoded(b"a\r\nb"),
     b"aw==:" + encoded(b"x" * 513), encoded(b"a\nb") + b":dg==", b",".join([b"aw==:" + encoded(b"x" * 300)] * 9)],
)  # fmt: skip
def test_a_correlation_that_is_none_or_too_long_spoils_the_header(correlation: bytes) -> None:
    assert parse(header(*GOOD), correlation) is None


def test_a_caller_is_a_reference_of_the_agents_kind() -> None:
    caller = parse(header(*GOOD), b"")
    assert isinstance(caller, SegmentRef)
    assert caller.ref_type == "CrossProcess"
    assert (caller.client_address, caller.service_instance) == ("10.0.0.1:80", "shop-1")


@settings(max_examples=150)
@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_no_header_at_all_raises_anything_else(sw8: bytes, correlation: bytes) -> None:
    with suppress(SuppressedError):
        parse(sw8, correlation)


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=200).map(base64.b64encode), min_size=7, max_size=7), st.integers(0, 2**32))
def test_what_is_taken_can_stand_in_a_response_header_and_in_a_log_line(parts: list[bytes], span: int) -> None:
    parts.insert(2, str(span).encode())
    caller = parse(b"1-" + b"-".join(parts[:7]), b"")
    if caller is not None:
        caller.trace_id.encode("ascii")
        assert caller.trace_id.isprintable()
        assert not any(character.isspace() for character in caller.trace_id)
