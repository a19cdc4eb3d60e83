"""FastStream in this process: its own brokers in memory, and messages as its client libraries have them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from skywalking_background import background_span
from trees import find, outline, tags, tree

pytest.importorskip("faststream.rabbit", reason="FastStream is not installed: pip install faststream[rabbit,redis]")
pytest.importorskip("faststream.redis", reason="FastStream is not installed: pip install faststream[rabbit,redis]")

from faststream import BaseMiddleware
from faststream.exceptions import AckMessage, NackMessage, RejectMessage, SkipMessage
from faststream.rabbit import RabbitBroker, TestRabbitBroker
from faststream.redis import RedisBroker, TestRedisBroker
from skywalking_background._plugins import Messages
from skywalking_background.faststream import _queue, tracing

if TYPE_CHECKING:
    from trees import Segments


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own plugin makes the spans of what arrives, as before."""
    monkeypatch.setattr(Messages, "ours", False)


@pytest.mark.parametrize(
    ("error", "outcome", "failed"),
    [
        (None, "succeeded", False),
        (AckMessage(), "succeeded", False),
        (SkipMessage(), "succeeded", False),
        (NackMessage(), "retried", False),
        (RejectMessage(), "rejected", False),
        (ValueError("no"), "failed", True),
    ],
)
async def test_a_message_is_published_and_worked_on_in_one_trace(
    segments: Segments, error: BaseException | None, outcome: str, failed: bool
) -> None:
    url = "amqp://guest:s3cret@rabbit:5672"
    broker = RabbitBroker(url, middlewares=[tracing(url)])
    seen: list[dict[str, Any]] = []

    @broker.subscriber("orders")
    async def handle(_order: str) -> None:
        with background_span("piece"):
            seen.append(broker.context.get_local("message").headers)
        if error is not None:
            raise error

    async with TestRabbitBroker(broker):
        with background_span("client"):
            try:
                await broker.publish("one", "orders", headers={"colour": "green"})
            except Exception as raised:  # noqa: BLE001  # the broker in memory hands on what a real one keeps
                assert raised is error  # noqa: PT017
    assert seen[0]["colour"] == "green"
    assert seen[0]["sw8"]
    sent, received = find(segments, "orders publish"), find(segments, "orders")
    assert outline([segments[0]]) == tree(f"""
        Entry orders{" failed" if failed else ""} CROSS_PROCESS
          Local piece""")
    assert tags(sent) == {"mq.queue": "orders", "mq.broker": "amqp://rabbit:5672"}
    found = tags(received)
    assert int(found.pop("transmission.latency")) < 60_000
    assert found == {"mq.queue": "orders", "mq.broker": "amqp://rabbit:5672", "task.outcome": outcome}
    assert [(span.layer.name, span.peer) for span in (sent, received)] == [("MQ", "rabbit:5672")] * 2
    assert Messages.ours


async def test_of_redis_the_channel_is_the_queue(segments: Segments) -> None:
    broker = RedisBroker("redis://cache", middlewares=[tracing("redis://cache")])

    @broker.subscriber("orders")
    async def handle(_order: str) -> None: ...

    async with TestRedisBroker(broker):
        await broker.publish("one", "orders")
    assert outline(segments) == "Entry orders CROSS_PROCESS\nExit orders publish"


class RawKafka:
    def topic(self) -> str:
        return "films"


@pytest.mark.parametrize(
    ("raw", "queue"),
    [
        (SimpleNamespace(routing_key="films", topic="other"), "films"),
        (SimpleNamespace(routing_key="", subject="films"), "films"),
        (SimpleNamespace(topic="films", channel="other"), "films"),
        (RawKafka(), "films"),
        ({"channel": b"films", "type": "message"}, "films"),
        ([RawKafka(), RawKafka()], "films"),
        (({"channel": "films"},), "films"),
        ({}, "unnamed"),
        ([], "unnamed"),
        (None, "unnamed"),
    ],
)
def test_the_queue_is_where_each_client_library_has_it(raw: object, queue: str) -> None:
    assert _queue(raw) == queue


class Message(SimpleNamespace):
    """What a middleware gets to see of one."""

    headers: Any = None


@pytest.mark.parametrize(("redelivered", "tag"), [(True, "true"), (False, None), (None, None), (1, None)])
async def test_what_comes_again_says_so(segments: Segments, redelivered: object, tag: str | None) -> None:
    async def call_next(message: Any) -> str:
        return f"done {message.number}"

    traced: Any = tracing("amqp://rabbit")(None, context=None)
    message = Message(raw_message=SimpleNamespace(routing_key="films", redelivered=redelivered), number=7)
    assert await traced.consume_scope(call_next, message) == "done 7"
    assert tags(find(segments, "films")).get("mq.redelivered") == tag


async def test_a_message_for_nowhere_and_what_the_broker_answers(segments: Segments) -> None:
    given = {"colour": "green"}
    command = SimpleNamespace(destination="", headers=given)

    async def call_next(published: Any) -> str:
        assert published is command
        return "sent"

    traced: Any = tracing("amqp://rabbit")("message", context="context")
    assert (traced.msg, traced.context) == ("message", "context")
    assert await traced.publish_scope(call_next, command) == "sent"
    assert (tags(find(segments, "unnamed publish"))["mq.queue"], given) == ("unnamed", {"colour": "green"})


def test_switched_off_it_is_faststreams_own(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing("amqp://rabbit", enabled=False) is BaseMiddleware
    monkeypatch.setenv("SKYWALKING_BACKGROUND_ENABLED", "no")
    assert tracing("amqp://rabbit") is BaseMiddleware
    assert not Messages.ours
