"""For message queues: the trace's place in a message's headers, and the spans of those who send and receive.

```python
with producer_span("orders publish", queue="orders", broker=url):
    inject(headers)
    await queue.publish(order, headers=headers)

with consumer_span("orders", message.headers, queue="orders", broker=url):
    await handle(message)
```

Such spans are what SkyWalking's *Virtual MQ* pages and the "Message Queue" widgets of a service show. For a runner that
has no broker, or none that should be seen, `inject` and `background_span(name, parent=extract(headers))` will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from skywalking_background import _messages
from skywalking_background._faults import note
from skywalking_background._internals import NoopSpan, open_spans
from skywalking_background._light_spans import set_tag
from skywalking_background._messages import Place, broker_at
from skywalking_background._spans import background_span, keep

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["Place", "consumer_span", "extract", "inject", "producer_span"]


def inject(headers: MutableMapping[str, str]) -> None:
    """Write this code's place in its trace, and the time of sending, into a message's headers.

    The headers are `sw8`, `sw8-correlation` and `sw8-x`, all text. Outside of any trace only the time is written.
    """
    try:
        _messages.write(headers)
    except Exception:  # noqa: BLE001  # the message is sent all the same
        note("writing a message's headers")


def extract(headers: Mapping[str, Any] | None) -> Place | None:
    """Read the place in a trace that a message was sent from, for `background_span(name, parent=…)`.

    `None` if the headers hold none that is well formed. A sender that is not traced is respected.

    Args:
        headers: a message's; values may be text or bytes.
    """
    try:
        found: Place | None = _messages.read(headers).caller
    except Exception:  # noqa: BLE001  # whatever a stranger has put there
        note("reading a message's headers")
        return None
    else:
        return found


class producer_span(background_span):  # noqa: N801  # reads as a keyword, as its base does
    """The span of a message that is sent (Exit, layer MQ): call `inject(headers)` in it, then publish.

    The agent's plugins for the client library below make no second one.

    Args:
        operation: the span's operation name; a few values, such as `orders publish`.
        queue: the queue's name, or the topic's.
        broker: its address, a URL or `host:port`. User, password and options in it are kept out of the trace.
        tags: tags by key.
    """

    __slots__ = ("_broker", "_queue")

    def __init__(self, operation: str, *, queue: str, broker: str, tags: Mapping[str, object] | None = None) -> None:
        super().__init__(operation, tags=tags)
        self._queue = queue
        self._broker = broker

    def __enter__(self) -> Self:
        self._outer = keep(open_spans())
        broker = broker_at(self._broker)
        self._span = _messages.open_exit(self._name, broker, broker.components[0])
        try:
            self.tag("mq.queue", self._queue)
            self._add_tags()
            _messages.shade(self._span)
        except Exception:  # noqa: BLE001
            note("opening the span of a message that is sent")
        return self


class consumer_span(background_span):  # noqa: N801
    """The span of the work on a message that arrived (Entry, layer MQ), in its sender's trace.

    Without a place in its headers it begins a trace. The time in the queue is its tag `transmission.latency`, in ms.

    Args:
        operation: the span's operation name, and the endpoint's in SkyWalking: a few values, such as the queue's name.
        headers: the message's; values may be text or bytes.
        queue: the queue's name, or the topic's.
        broker: its address, a URL or `host:port`. User, password and options in it are kept out of the trace.
        tags: tags by key.
    """

    __slots__ = ("_broker", "_headers", "_queue")

    def __init__(
        self,
        operation: str,
        headers: Mapping[str, Any] | None,
        *,
        queue: str,
        broker: str,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(operation, tags=tags)
        self._headers = headers
        self._queue = queue
        self._broker = broker

    def __enter__(self) -> Self:
        self._outer = keep(open_spans())
        self._span = None
        try:
            received = _messages.read(self._headers)
        except Exception:  # noqa: BLE001  # whatever a stranger has put there
            note("reading a message's headers")
            received = _messages.Received(None, None)
        broker = broker_at(self._broker)
        self._span = span = _messages.open_entry(self._name, received, broker, broker.components[1])
        try:
            if span is not None and not isinstance(span, NoopSpan):
                set_tag(span, "mq.queue", self._queue)
                _messages.tag_delay(span, received.sent)
            self._add_tags()
        except Exception:  # noqa: BLE001
            note("opening the span of a message that arrived")
        return self
