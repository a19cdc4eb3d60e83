"""What a message says of its trace in its headers, and the two spans of its way: who sent it, and who works on it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from skywalking_background import _agent, _meters, _sw8
from skywalking_background._faults import note
from skywalking_background._internals import (
    Carrier,
    Component,
    Kind,
    Layer,
    NoopContext,
    NoopSpan,
    config,
    open_spans,
    sampled,
    set_open_spans,
)
from skywalking_background._light_spans import TASK_ADDRESS, TaskSpan, noop_span, set_tag
from skywalking_background._running import begun
from skywalking_background._segments import UNSAMPLED, Context, Origin, origin_of
from skywalking_background._spans import strand_here

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from skywalking_background._internals import Span

SW8: Final = "sw8"
CORRELATION: Final = "sw8-correlation"
SENT: Final = "sw8-x"
"""SkyWalking's own header for the time of sending: `<tracing mode>-<ms since the epoch>`."""

_NOTHING: Final = _sw8.NOTHING.decode()
_ADDRESS: Final = re.compile(r"(?:([A-Za-z][\w.+-]*):)?(?://)?(.*)", re.DOTALL)

_PORTS: Final = {
    "amqp": 5672,
    "amqps": 5671,
    "kafka": 9092,
    "nats": 4222,
    "pulsar": 6650,
    "redis": 6379,
    "rediss": 6379,
}
_COMPONENTS: Final = {
    "amqp": (Component.RabbitmqProducer, Component.RabbitmqConsumer),
    "kafka": (Component.KafkaProducer, Component.KafkaConsumer),
    "pulsar": (Component.PulsarProducer, Component.PulsarConsumer),
    "redis": (Component.Redis, Component.Redis),
}


class Broker(NamedTuple):
    """A broker, without what would let a reader of the trace log in."""

    peer: str
    """`host:port`, which is its name among SkyWalking's message queues."""
    url: str
    """As `amqp://host:5672/vhost`."""

    @property
    def components(self) -> tuple[Component, Component]:
        """What sends to it and what receives from it, as SkyWalking's pictures tell them apart."""
        scheme = self.url.partition("://")[0].rstrip("s")
        return _COMPONENTS.get(scheme, (Component.Unknown, Component.Unknown))


def broker_at(address: str) -> Broker:
    """Read a broker's address, be it a URL or `host:port`; user, password and options are left out.

    A password may hold any character, in addresses that people write by hand: all up to the last `@` is left out.
    """
    found = _ADDRESS.fullmatch(address) if "://" in address else None
    scheme, rest = (found[1], found[2]) if found else ("", address)
    rest = re.split(r"[?#;,]", rest.rpartition("@")[2])[0]
    host, _, path = rest.partition("/")
    host = host.strip(":")
    if host and scheme in _PORTS and ":" not in host.rpartition("]")[2]:
        host = f"{host}:{_PORTS[scheme]}"
    where = f"{host}/{path}".rstrip("/")
    return Broker(host or path or scheme or "unknown", f"{scheme}://{where}" if scheme else where)


class MessageSpan(TaskSpan):
    """The work on a message: the first span of its segment."""

    kind = Kind.Entry
    layer = Layer.MQ


class Shade(NoopSpan):  # type: ignore[misc]  # the agent has no types
    """Stands above the span of a message that is being sent.

    The agent's plugins below (py-amqp, redis, aiormq) would make a second one for it. What they write into the message
    is the place of the first, and whoever asks for the place in the trace gets it too.
    """

    def __init__(self, span: Span) -> None:
        super().__init__(_ShadedContext(self))
        self.span = span
        self.origin = origin_of(span)

    def inject(self) -> Carrier:
        return self.span.inject()


class _ShadedContext(NoopContext):  # type: ignore[misc]
    def __init__(self, shade: Shade) -> None:
        super().__init__()
        self.shade = shade

    def new_exit_span(self, *_: object, **__: object) -> Shade:
        return Shade(self.shade.span)


class Received(NamedTuple):
    """What a message's headers say."""

    caller: Any
    """The place in a trace that it was sent from; `UNSAMPLED`; `None` where they say nothing."""
    sent: int | None
    """When it was sent, in ms since the epoch."""


def write(headers: MutableMapping[str, str]) -> None:
    """Write into headers where this code is in its trace, and the time."""
    headers[SENT] = f"0-{int(time.time() * 1000)}"
    spans = open_spans()
    if not spans:
        return
    inner = spans[-1]
    place = origin_of(inner)
    if place is UNSAMPLED:
        headers[SW8] = _NOTHING
        headers.pop(CORRELATION, None)
        return
    span = inner.span if isinstance(inner, Shade) else inner
    carrier = Carrier(
        trace_id=place.trace_id,
        segment_id=place.segment_id,
        span_id=str(place.span_id),
        service=place.service,
        service_instance=place.service_instance,
        endpoint=place.endpoint,
        client_address=(span.kind is Kind.Exit and span.peer) or TASK_ADDRESS,
        correlation=place.correlation,
    )
    headers[SW8] = carrier.val
    if correlation := carrier.correlation_carrier.val:
        headers[CORRELATION] = correlation
    else:
        headers.pop(CORRELATION, None)


def read(headers: Mapping[str, Any] | None) -> Received:
    """Read what a sender wrote; what is not well formed says nothing. Values may be text or bytes."""
    headers = headers or {}
    caller: Any = None
    try:
        if sw8 := _bytes(headers, SW8):
            caller = _sw8.parse(sw8, _bytes(headers, CORRELATION))
    except _sw8.SuppressedError:
        caller = UNSAMPLED
    sent = _bytes(headers, SENT).partition(b"-")[2].partition(b"-")[0].strip()
    return Received(caller, int(sent) if sent.isdigit() and len(sent) < 16 else None)  # noqa: PLR2004  # ms


def _bytes(headers: Mapping[str, Any], key: str) -> bytes:
    value = headers.get(key)
    if value is None:
        value = next((headers[one] for one in headers if str(one).lower() == key), None)
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return value if isinstance(value, bytes) else b""


def open_exit(operation: str, broker: Broker, component: Component) -> Span | None:
    """Open the span of a message that is sent now; `None` if that failed."""
    try:
        spans = open_spans()
        span = _context(spans).new_exit_span(op=operation, peer=broker.peer, component=component)
        if isinstance(span, NoopSpan):
            set_open_spans([*spans, span])
            return span
        span.layer = Layer.MQ
        set_tag(span, "mq.broker", broker.url)
        span.start()
    except Exception:  # noqa: BLE001
        note("opening the span of a message that is sent")
        return None
    else:
        return span


def _context(spans: list[Any]) -> Any:  # noqa: ANN401  # a context of ours, or the agent's that does nothing
    if not _agent.tracing():
        return NoopContext()
    if spans:
        return spans[-1].context
    return Context() if sampled() else NoopContext()


def shade(span: Span | None) -> None:
    """Keep what is below the sending of a message out of the trace, until its span ends."""
    try:
        if span is not None and not isinstance(span, NoopSpan):
            set_open_spans([*open_spans(), Shade(span)])
    except Exception:  # noqa: BLE001
        note("opening the span of a message that is sent")


def open_entry(
    operation: str, received: Received, broker: Broker, component: Component, began: float | None = None
) -> Span | None:
    """Open the span of the work on a message; `None` if that failed.

    It goes on from the sender, or else begins a trace: the loop that fetched the message is nobody's parent.

    Args:
        operation: its name.
        received: what the headers say.
        broker: where it comes from.
        component: what works on it.
        began: since when, in seconds as of `time.time()`, if it has ended already; by default it begins now.
    """
    try:
        start = int((time.time() if began is None else began) * 1000)
        span = _entry(operation, received.caller, broker, start)
        if isinstance(span, MessageSpan):
            span.component = component
            span.peer = broker.peer
            span.strand = strand_here()
            set_tag(span, "mq.broker", broker.url)
            if began is None:
                begun(span)
        set_open_spans([span])
        if began is None and _agent.tracing():
            _meters.begin(span, operation)
    except Exception:  # noqa: BLE001
        note("opening the span of a message that arrived")
        return None
    else:
        return span


def _entry(operation: str, caller: Any, broker: Broker, start: int) -> Span:  # noqa: ANN401
    # A sender's trace goes on whole: the decision to sample was its own.
    traced = caller is not UNSAMPLED and _agent.tracing() and (caller is not None or sampled())
    if not traced or config.RE_IGNORE_PATH.match(operation):
        span = noop_span()
        span.start_time = start
        return span
    if isinstance(caller, _sw8.Caller) and caller.client_address == TASK_ADDRESS:
        caller.client_address = broker.peer  # written outside of a span of the sending: OAP asks for the broker here
    return MessageSpan(Context(operation, None if caller is None else caller, 1), operation, start)


def tag_delay(span: Span, sent: float | None, due: float | None = None) -> None:
    """Say how long the message waited in the queue, which OAP wants as whole ms.

    Args:
        span: that of the work on it.
        sent: when it was sent, in ms since the epoch; where that is not known, nothing is said.
        due: when it was to be worked on at the earliest, likewise.
    """
    if sent is not None:
        delay = max(0, int(span.start_time - max(sent, due or 0)))
        set_tag(span, "transmission.latency", delay)
        _meters.waited(span, delay, span.start_time)


Place = Origin | _sw8.Caller
"""A place in a trace, to go on from by `background_span(name, parent=…)`."""
