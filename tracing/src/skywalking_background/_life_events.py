"""What happens to a process as a whole, on SkyWalking's timeline: events of its instance, drawn over the charts.

Its start and its end, what an app says by `event`, what another process has left behind, and when OAP was away.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from skywalking.protocol.event.Event_pb2 import Event, Source, Type

from skywalking_background._failures import DeliveryError, UnreachableError
from skywalking_background._faults import logger, note, safe_text
from skywalking_background._ids import new_id
from skywalking_background._internals import clean, config
from skywalking_background._limits import cut

if TYPE_CHECKING:
    from collections.abc import Callable


LIMIT: Final = 100
"""Events that wait for OAP; of more the oldest are dropped."""
_NAME_CHARS: Final = 150
_MESSAGE_CHARS: Final = 1_000
_RETRY: Final = 5.0  # seconds until an OAP that is away is asked again

_waiting: Final[deque[bytes]] = deque(maxlen=LIMIT)
_try_again = 0.0  # as of `time.monotonic()`
_begin: Callable[[], object] = bool


def when_something_waits(begin: Callable[[], object]) -> None:
    """Have this called with each event, so that a process which does nothing else sends it."""
    global _begin  # noqa: PLW0603  # one reporter per process
    _begin = begin


def event(name: str, message: str, *, failed: bool = False, seconds: float = 0.0) -> None:
    """Put an event of this process on SkyWalking's timeline: a deployment, a drain, a switch. Never raises.

    Args:
        name: what has happened, in a word; the same for all events of its kind.
        message: what there is to say about this one.
        failed: whether it is trouble.
        seconds: how long it took until now.
    """
    try:
        end = int(time.time() * 1000)
        encoded = Event(
            uuid=new_id(),
            source=Source(service=config.agent_name, serviceInstance=config.agent_instance_name),
            name=clean(cut(safe_text(name), _NAME_CHARS)),
            type=Type.Error if failed else Type.Normal,
            message=clean(cut(safe_text(message), _MESSAGE_CHARS)),
            startTime=end - round(seconds * 1000),
            endTime=end,
            layer="GENERAL",
        ).SerializeToString()
        if len(_waiting) == LIMIT:
            logger.warning("%d events wait for OAP already, the oldest is dropped", LIMIT)
        _waiting.append(encoded)
        _begin()
    except Exception:  # noqa: BLE001  # the user's code goes on
        note("making an event")


def step(send: Callable[[list[bytes]], object] | None) -> None:
    """Send what waits, if there is something; never raises. Without a way to send, events are not kept."""
    global _try_again  # noqa: PLW0603  # one reporter per process
    if not _waiting or time.monotonic() < _try_again:
        return
    batch = [_waiting.popleft() for _ in range(len(_waiting))]
    try:
        if send is not None:
            send(batch)
    except UnreachableError:  # which the reporter says
        _waiting.extendleft(reversed(batch))
        _try_again = time.monotonic() + _RETRY
    except DeliveryError as error:
        logger.warning("OAP does not take the events of this process (%s): %d are dropped", error, len(batch))
    except Exception:  # noqa: BLE001  # the reporter goes on
        note("reporting events")


def forget_all() -> None:
    """In a forked process: what waits is the parent's."""
    _waiting.clear()
