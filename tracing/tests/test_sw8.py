from __future__ import annotations

import base64

import pytest
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
