from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skywalking.trace.context import get_context
from skywalking_background import _messages, background_span, current_trace_id, faults, messaging, untraced
from skywalking_background._messages import broker_at
from skywalking_background.messaging import consumer_span, extract, inject, producer_span
from trees import find, names, outline, tags, tree

if TYPE_CHECKING:
    from trees import Segments

URL = "amqp://guest:s3cret@rabbit:5672/shop?heartbeat=5"


def send(**headers: str) -> dict[str, str]:
    with producer_span("orders publish", queue="orders", broker=URL):
        inject(headers)
    return headers


@pytest.mark.parametrize(
    ("address", "peer", "url"),
    [
        (URL, "rabbit:5672", "amqp://rabbit:5672/shop"),
        ("amqp://guest:guest@rabbit", "rabbit:5672", "amqp://rabbit:5672"),
        ("amqp://rabbit//", "rabbit:5672", "amqp://rabbit:5672"),
        ("amqps://rabbit", "rabbit:5671", "amqps://rabbit:5671"),
        ("redis://:s3cret@cache:6380/1", "cache:6380", "redis://cache:6380/1"),
        ("redis://:s3/cr?e@t#@cache/1", "cache:6379", "redis://cache:6379/1"),
        ("redis://cache?password=s3cret", "cache:6379", "redis://cache:6379"),
        ("sentinel://:s3cret@a:1;sentinel://:s3cret@b:2", "b:2", "sentinel://b:2"),
        ("kafka-1:9092,kafka-2:9092", "kafka-1:9092", "kafka-1:9092"),
        ("guest:s3cret@rabbit:5672", "rabbit:5672", "rabbit:5672"),
        ("redis://[::1]", "[::1]:6379", "redis://[::1]:6379"),
        ("redis+socket:///run/redis.sock", "run/redis.sock", "redis+socket:///run/redis.sock"),
        ("memory://", "memory", "memory://"),
        ("", "unknown", ""),
    ],
)
def test_a_broker_is_named_without_what_opens_it(address: str, peer: str, url: str) -> None:
    assert tuple(broker_at(address)) == (peer, url)
    assert broker_at(address).peer  # OAP leaves a message without one out
    assert "s3cret" not in str(broker_at(address))


@given(st.text(), st.text(), st.sampled_from(["amqp", "redis", "nats"]))
def test_no_password_stays(user: str, password: str, scheme: str) -> None:
    named = broker_at(f"{scheme}://{user}:{password}@host:1/x")
    assert named == ("host:1", f"{scheme}://host:1/x")


def test_a_message_goes_from_hand_to_hand_in_one_trace(segments: Segments) -> None:
    with background_span("client"):
        headers = send()
        outer = current_trace_id()
    with consumer_span("orders", headers, queue="orders", broker=URL):
        assert current_trace_id() == outer
        with background_span("piece"):
            pass
    assert current_trace_id() is None
    assert outline(segments) == tree("""
        Entry orders CROSS_PROCESS
          Local piece
        Local client
          Exit orders publish""")
    sent, received = find(segments, "orders publish"), find(segments, "orders")
    where = {"mq.queue": "orders", "mq.broker": "amqp://rabbit:5672/shop"}
    assert tags(sent) == where
    assert int(tags(received).pop("transmission.latency")) >= 0
    assert {**where, **tags(received)} == tags(received)
    assert [span.layer.name for span in (sent, received)] == ["MQ", "MQ"]
    assert [span.peer for span in (sent, received)] == ["rabbit:5672", "rabbit:5672"]
    assert [span.component.name for span in (sent, received)] == ["RabbitmqProducer", "RabbitmqConsumer"]
    (ref,) = received.refs
    assert (ref.span_id, ref.client_address) == (sent.sid, "rabbit:5672")


def test_the_delay_counts_from_the_sending(segments: Segments) -> None:
    now = int(time.time() * 1000)
    for value, least, most in (
        (f"0-{now - 5000}", 5000, 60_000),
        (f"-{now - 5000}", 5000, 60_000),
        (f"0-{now + 60_000}", 0, 0),
    ):
        with consumer_span("orders", {"sw8-x": value}, queue="orders", broker=URL):
            pass
        assert least <= int(tags(segments.pop().spans[0])["transmission.latency"]) <= most
    for value in ("", "0", "0- ", "0-soon", "x", "0-" + "9" * 40):
        with consumer_span("orders", {"sw8-x": value}, queue="orders", broker=URL):
            pass
        assert "transmission.latency" not in tags(segments.pop().spans[0])


def test_what_was_written_outside_of_a_message_names_the_broker_to_oap(segments: Segments) -> None:
    headers: dict[str, str] = {}
    with background_span("client"):
        inject(headers)
    with consumer_span("orders", headers, queue="orders", broker=URL):
        pass
    (ref,) = find(segments, "orders").refs
    assert ref.client_address == "rabbit:5672"


def test_bytes_and_other_spellings_are_read(segments: Segments) -> None:
    with background_span("client"):
        headers = send()
    odd: dict[Any, Any] = {key.upper().encode().decode(): value.encode() for key, value in headers.items()}
    with consumer_span("orders", odd, queue="orders", broker=URL):
        pass
    assert find(segments, "orders").refs


def test_without_headers_a_trace_begins_whatever_loop_fetched_the_message(segments: Segments) -> None:
    with background_span("loop"):
        for headers in ({}, None, {"sw8": "nonsense"}):
            with consumer_span("orders", headers, queue="orders", broker=URL):
                pass
    assert outline(segments) == "Entry orders\nEntry orders\nEntry orders\nLocal loop"
    assert len({str(segment.related_traces[0]) for segment in segments}) == 4


@given(
    st.dictionaries(st.sampled_from(["sw8", "sw8-x", "sw8-correlation"]), st.one_of(st.text(), st.binary(), st.none()))
)
def test_no_stranger_breaks_a_consumer(headers: dict[str, Any]) -> None:
    extract(headers)
    assert faults() == {}


def test_headers_of_no_use_are_a_fault_of_tracing(segments: Segments) -> None:
    from skywalking_background import _faults

    assert extract(7) is None  # type: ignore[arg-type]
    inject(None)  # type: ignore[arg-type]
    with consumer_span("orders", 7, queue="orders", broker=URL):  # type: ignore[arg-type]
        pass
    assert names(segments) == ["orders"]
    assert faults() == {"reading a message's headers": 2, "writing a message's headers": 1}
    _faults._seen.clear()


def test_what_fails_in_opening_a_span_stays_there(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    from skywalking_background import _faults

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    ran: list[str] = []
    for module, name in (
        (_messages, "set_tag"),
        (_messages, "_context"),
        (_messages, "_entry"),
        (messaging, "set_tag"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            with background_span("client"):
                ran.append(name)
                send()
                with consumer_span("orders", {"sw8-x": "0-1"}, queue="orders", broker=URL, tags={"a": "b"}):
                    ran.append(name)
                assert current_trace_id() is not None
    with monkeypatch.context() as patch:
        patch.setattr(_messages, "shade", broken)
        send()
    assert len(ran) == 8
    assert set(faults()) == {
        "opening the span of a message that is sent",
        "opening the span of a message that arrived",
    }
    _faults._seen.clear()


def test_tags_can_be_given(segments: Segments) -> None:
    with producer_span("publish", queue="orders", broker=URL, tags={"size": 7}):
        pass
    with consumer_span("orders", None, queue="orders", broker=URL, tags={"size": 8}):
        pass
    assert [tags(segment.spans[0])["size"] for segment in segments] == ["7", "8"]


def test_the_plugins_below_make_no_second_span(segments: Segments) -> None:
    with background_span("client"), producer_span("publish", queue="orders", broker=URL) as span:
        headers: dict[str, str] = {}
        inject(headers)
        with get_context().new_exit_span(op="RabbitMQ/Producer", peer="rabbit") as below:
            assert {item.key: item.val for item in below.inject() if item.val} == {"sw8": headers["sw8"]}
        span.tag("size", 7)
        assert current_trace_id() is not None
    assert outline(segments) == "Local client\n  Exit publish"
    assert tags(find(segments, "publish"))["size"] == "7"


def test_a_publish_that_fails_is_a_failed_span(segments: Segments) -> None:
    with background_span("client"):
        with pytest.raises(OSError, match="away"), producer_span("publish", queue="orders", broker=URL):
            raise OSError("away")
        with background_span("piece"):
            pass
    assert outline(segments) == tree("""
        Local client
          Exit publish failed
          Local piece""")


def test_what_is_not_traced_stays_so(segments: Segments) -> None:
    headers = {"sw8": "of another", "sw8-correlation": "YQ==:Yg=="}
    with untraced():
        headers = send(**headers)
    with consumer_span("orders", headers, queue="orders", broker=URL), background_span("piece"):
        assert current_trace_id() is None
    with background_span("job", parent=extract(headers)):
        pass
    assert segments == []
    assert "sw8-correlation" not in headers


def test_outside_of_any_trace_a_publish_begins_one(segments: Segments) -> None:
    headers = send()
    with consumer_span("orders", headers, queue="orders", broker=URL):
        pass
    assert outline(segments) == "Entry orders CROSS_PROCESS\nExit orders publish"
    headers = {}
    inject(headers)
    assert list(headers) == ["sw8-x"]


async def test_consumers_side_by_side_keep_apart(segments: Segments) -> None:
    async def handle(number: int) -> None:
        with background_span(f"client {number}"):
            headers = send()
        await asyncio.sleep(0)
        with consumer_span(f"orders {number}", headers, queue="orders", broker=URL):
            await asyncio.sleep(0.01)
            with background_span("piece"):
                await asyncio.sleep(0.01)

    await asyncio.gather(*(handle(number) for number in range(20)))
    found = outline(segments)
    assert all(f"Entry orders {number} CROSS_PROCESS\n  Local piece" in found for number in range(20))


def test_a_bare_thread_loop_by_inject_and_extract(segments: Segments) -> None:
    jobs: list[dict[str, str]] = []

    def loop() -> None:
        for headers in jobs:
            with background_span("job", parent=extract(headers)):
                pass

    with background_span("client"):
        headers: dict[str, str] = {}
        inject(headers)
        jobs.append(headers)
    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert outline(segments) == "Local client\nLocal job CROSS_PROCESS"
    (ref,) = find(segments, "job").refs
    assert ref.segment_id == str(segments[0].segment_id)


def test_what_the_caller_passes_on_arrives(segments: Segments) -> None:
    with background_span("client"):
        get_context().put_correlation("tenant", "blue")
        headers = send()
    with consumer_span("orders", headers, queue="orders", broker=URL):
        assert get_context().get_correlation("tenant") == "blue"
    assert len(segments) == 2
