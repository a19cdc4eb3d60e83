"""What is written by hand is what protobuf would have written: read back, and compared with its own objects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skywalking import Component, Kind, Layer, Log, LogItem, config
from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection, SegmentObject
from skywalking.protocol.logging.Logging_pb2 import LogData
from skywalking.trace.span import EntrySpan, ExitSpan, Span
from skywalking.trace.tags import Tag
from skywalking_background import _encoding
from skywalking_background._encoding import encode_log, encode_segment
from skywalking_background._light_spans import HandlingSpan, RequestSpan, TaskSpan, common_tag, set_tag
from skywalking_background._limits import STACK_CHARS, TAG_VALUE_CHARS

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)
number = st.integers(0, 2**31 - 1)
time = st.integers(0, 2**53)


class ListTag(Tag):  # type: ignore[misc]  # the agent has no types
    key = "sql.parameters"
    overridable = False


@st.composite
def spans(draw: st.DrawFn) -> Span:
    kind = draw(st.sampled_from([Span, EntrySpan, ExitSpan]))
    own = {"kind": Kind.Local} if kind is Span else {}
    span = kind(None, draw(number), draw(st.integers(-1, 2**31 - 1)), draw(text), draw(st.none() | text), **own)
    span.component, span.layer = draw(st.sampled_from(Component)), draw(st.sampled_from(Layer))  # type: ignore[attr-defined]
    span.start_time, span.end_time, span.error_occurred = draw(time), draw(time), draw(st.booleans())
    for key, value in draw(st.dictionaries(text, text, max_size=3)).items():
        set_tag(span, key, value)
    span.tags["http.status_code"] = common_tag("http.status_code", draw(st.sampled_from([200, 404])))
    for value in draw(st.lists(text, max_size=2)):
        span.tag(ListTag(value))
    for items in draw(st.lists(st.dictionaries(text, text, max_size=3), max_size=2)):
        span.logs.append(Log(draw(time) / 1000, [LogItem(key, value) for key, value in items.items()]))
    names = ("trace_id", "segment_id", "service", "service_instance", "endpoint", "client_address")
    for kind_of_reference in draw(st.lists(st.sampled_from(["CrossProcess", "CrossThread"]), max_size=2)):
        texts = {name: draw(text) for name in names}
        span.refs.append(SimpleNamespace(ref_type=kind_of_reference, span_id=draw(number), **texts))
    return span


def by_protobuf(segment: Any) -> SegmentObject:
    message = SegmentObject(
        traceId=segment.related_traces[0],
        traceSegmentId=segment.segment_id,
        service=config.agent_name,
        serviceInstance=config.agent_instance_name,
        isSizeLimited=segment.is_size_limited,
    )
    for span in segment.spans:
        added = message.spans.add(
            spanId=span.sid,
            parentSpanId=span.pid,
            startTime=span.start_time,
            endTime=span.end_time,
            operationName=span.op,
            peer=span.peer or "",
            spanType=span.kind.name,
            spanLayer=span.layer.name,
            componentId=span.component.value,
            isError=span.error_occurred,
        )
        for tag in span.iter_tags():
            added.tags.add(key=tag.key, value=tag.val)
        for log in span.logs:
            entry = added.logs.add(time=int(log.timestamp * 1000))
            for item in log.items:
                entry.data.add(key=item.key, value=item.val)
        for reference in span.refs:
            if reference.trace_id:
                added.refs.add(
                    refType=reference.ref_type,
                    traceId=reference.trace_id,
                    parentTraceSegmentId=reference.segment_id,
                    parentSpanId=reference.span_id,
                    parentService=reference.service,
                    parentServiceInstance=reference.service_instance,
                    parentEndpoint=reference.endpoint,
                    networkAddressUsedAtPeer=reference.client_address,
                )
    return message


@settings(max_examples=150, deadline=None)
@given(st.builds(SimpleNamespace, related_traces=st.lists(text, min_size=1, max_size=1), segment_id=text,
                 spans=st.lists(spans(), max_size=4), is_size_limited=st.booleans()))  # fmt: skip
def test_the_bytes_are_those_of_protobuf(segment: Any) -> None:
    (read,) = SegmentCollection.FromString(encode_segment(segment)).segments
    assert read == by_protobuf(segment)


def one_span(**values: Any) -> Any:
    span = Span(None, 0, -1, "task", kind=Kind.Local)
    span.__dict__.update(values)
    return span


def encoded(span: Any) -> Any:
    segment = SimpleNamespace(related_traces=["trace"], segment_id="segment", spans=[span], is_size_limited=False)
    (read,) = SegmentCollection.FromString(encode_segment(segment)).segments
    return read.spans[0]


def test_segments_one_after_the_other_are_a_larger_collection() -> None:
    segment = SimpleNamespace(related_traces=["t"], segment_id="s", spans=[one_span()], is_size_limited=False)
    assert len(SegmentCollection.FromString(encode_segment(segment) * 3).segments) == 3


def test_what_utf_8_or_a_database_refuses_is_replaced() -> None:
    span = one_span(op="r\udce9sum\udce9", peer="a\0b")
    set_tag(span, "file", "r\udce9sum\udce9.pdf")
    span.logs.append(Log(0.0, [LogItem("message", "\udcff\0")]))
    read = encoded(span)
    assert (read.operationName, read.peer) == (r"r\udce9sum\udce9", r"a\x00b")
    assert read.tags[0].value == r"r\udce9sum\udce9.pdf"
    assert read.logs[0].data[0].value == r"\udcff\x00"


def test_a_value_that_is_no_text_becomes_some() -> None:
    class Silent:
        def __str__(self) -> str:
            raise ValueError

    span = one_span(op=42, peer=Silent())
    span.logs.append(Log(0.0, [LogItem("message", Silent())]))
    read = encoded(span)
    assert (read.operationName, read.peer) == ("42", "<Silent without text>")
    assert read.logs[0].data[0].value == "<Silent without text>"


def test_what_is_too_long_is_cut_and_says_so() -> None:
    span = one_span(op="o" * 5_000)
    set_tag(span, "body", "x" * 1_000_000)
    span.logs.append(Log(0.0, [LogItem("stack", "first" + "x" * 1_000_000 + "last")]))
    read = encoded(span)
    assert read.operationName == "o" * TAG_VALUE_CHARS + "… (1,000 characters more)"
    assert read.tags[0].value == "x" * TAG_VALUE_CHARS + f"… ({1_000_000 - TAG_VALUE_CHARS:,} characters more)"
    stack = read.logs[0].data[0].value
    assert len(stack) < STACK_CHARS + 100
    assert stack.startswith("firstx")
    assert stack.endswith("xlast")
    assert "984,009 characters more" in stack


@pytest.mark.parametrize("value", ["late", None, -1.5])
def test_a_time_that_is_none_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError):
        encoded(one_span(start_time=value))


@st.composite
def light_spans(draw: st.DrawFn) -> Span:
    origin = SimpleNamespace(
        trace_id="trace", segment_id=draw(text), span_id=draw(st.sampled_from([0, 1, 300])), service="s",
        service_instance=draw(st.sampled_from(["one", "two"])),
        endpoint=draw(st.sampled_from(["HTTP GET /", "x" * 500])),
        client_address=draw(st.sampled_from(["", "background-task:1", "10.0.0.1:80"])),
        ref_type=draw(st.sampled_from(["CrossProcess", "CrossThread"])), correlation=None,
    )  # fmt: skip
    context = SimpleNamespace(parent=draw(st.none() | st.just(origin)))
    name = draw(st.sampled_from(["HTTP GET /", "task", "x" * 500]) | text)
    entry = RequestSpan(context, name, draw(time), origin)
    kind = draw(st.sampled_from(["entry", "handling", "task"]))
    span = {"entry": entry, "handling": HandlingSpan(entry, name)}.get(kind) or TaskSpan(context, name, draw(time))
    span.end_time = draw(time)
    if draw(st.booleans()):
        span.error_occurred = True
    if kind == "entry":
        span.peer = draw(st.none() | text)
    for key, value in draw(st.dictionaries(text, text, max_size=2)).items():
        set_tag(span, key, value)
    for status in draw(st.lists(st.sampled_from([200, 404]), max_size=2)):
        span.tags[f"http.status_code.{status}"] = common_tag(f"http.status_code.{status}", status)
    if draw(st.booleans()):
        span.tag(ListTag(draw(text)))
    if draw(st.booleans()):
        span.logs.append(Log(draw(time) / 1000, [LogItem("event", draw(text))]))
    if draw(st.booleans()):
        span.component, span.layer = draw(st.sampled_from(Component)), draw(st.sampled_from(Layer))  # type: ignore[attr-defined]
    if draw(st.booleans()) and span.refs and draw(st.booleans()):
        span.refs.append(origin)
    return span


@settings(max_examples=200, deadline=None)
@given(st.lists(light_spans(), min_size=1, max_size=3), st.booleans())
def test_a_span_of_few_objects_is_written_as_any_other(spans: list[Any], again: bool) -> None:
    segment = SimpleNamespace(related_traces=["trace"], segment_id="s", spans=spans, is_size_limited=False)
    if again:
        encode_segment(segment)  # what it has in common with the next is remembered
    (read,) = SegmentCollection.FromString(encode_segment(segment)).segments
    expected = by_protobuf(segment)
    for span, written in zip(spans, expected.spans, strict=True):
        for reference in written.refs:
            if span.kind is Kind.Entry and reference.networkAddressUsedAtPeer == "background-task:1":
                reference.networkAddressUsedAtPeer = ""  # OAP would draw a call from there
    assert sorted_tags(read) == sorted_tags(expected)


def sorted_tags(segment: SegmentObject) -> SegmentObject:
    """Put the tags in one order: what spans have in common is written first."""
    for span in segment.spans:
        tags = sorted(span.tags, key=lambda tag: (tag.key, tag.value))
        del span.tags[:]
        span.tags.extend(tags)
    return segment


BOUNDS = sorted({0, 1, *(bound + more for bound in (1 << 7, 1 << 14, 1 << 21, 1 << 28) for more in (-2, -1, 0, 1))})


@pytest.mark.parametrize("number", BOUNDS)
def test_numbers_are_right_where_a_byte_is_added(number: int) -> None:
    span = one_span(sid=number, pid=number, start_time=number, end_time=number + (1 << 14))
    reference = SimpleNamespace(
        ref_type="CrossThread", trace_id="t", segment_id="s", span_id=number, service="s", service_instance="i",
        endpoint="e", client_address="",
    )  # fmt: skip
    span.refs.append(reference)
    read = encoded(span)
    assert (read.spanId, read.parentSpanId) == (number, number)
    assert (read.startTime, read.endTime) == (number, number + (1 << 14))
    assert read.refs[0].parentSpanId == number


@pytest.mark.parametrize("size", [126, 127, 128, 129, 199, 200, 201, 16_000])
@pytest.mark.parametrize("letter", ["x", "\u00e9"])
def test_texts_are_right_where_a_byte_is_added(size: int, letter: str) -> None:
    value = letter * min(size, TAG_VALUE_CHARS)
    span = one_span(op=value, peer=value)
    set_tag(span, value, value)
    span.logs.append(Log(0.0, [LogItem(value, letter * size)]))
    read = encoded(span)
    assert (read.operationName, read.peer) == (value, value)
    assert (read.tags[0].key, read.tags[0].value) == (value, value)
    assert read.logs[0].data[0].key == value
    assert read.logs[0].data[0].value == letter * size


@pytest.mark.parametrize(("size", "more"), [(TAG_VALUE_CHARS, ""), (TAG_VALUE_CHARS + 1, "… (1 characters more)")])
def test_a_value_is_cut_above_the_limit_only(size: int, more: str) -> None:
    assert encoded(one_span(op="x" * size)).operationName == "x" * TAG_VALUE_CHARS + more


def test_a_log_line_keeps_its_endpoint_where_oap_is_not_set_up_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogData(service="shop", endpoint="/buy")
    monkeypatch.setattr(_encoding, "ENDPOINT_AS_TAG", False)
    assert LogData.FromString(encode_log(log)) == LogData(service="shop", endpoint="/buy")
    monkeypatch.setattr(_encoding, "ENDPOINT_AS_TAG", True)
    found = LogData.FromString(encode_log(log))
    assert (found.service, found.endpoint) == ("shop", "")
    assert [(tag.key, tag.value) for tag in found.tags.data] == [("endpoint", "/buy")]
    assert not LogData.FromString(encode_log(LogData(service="shop"))).HasField("tags")
