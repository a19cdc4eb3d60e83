"""`make crash`: what becomes of accepted work when the process that does it, or the broker, goes."""

from __future__ import annotations

import asyncio
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracing_claims.variants import FAULTS

from stack.compare.progress import Progress
from stack.compare.rig import VISIBILITY_SECONDS
from stack.compare.traces import look_for
from stack.load import send

if TYPE_CHECKING:
    from demo_service.ledger import Count
    from oap_query import Oap
    from tracing_claims.variants import Fault, Variant

    from stack.compare.rig import Rig
    from stack.compare.traces import Shown
    from stack.load import Sent

WARM_UP: Final = 8
SENDING_SECONDS: Final = 4.0
"""How long the requests take to send; the fault comes in the middle."""
WORK_SECONDS: Final = 2.0
SHORT_WORK_SECONDS: Final = 0.4
"""Where only a few run at the same time."""
QUIET_SECONDS: Final = 15.0
"""After how long without an end nothing more is expected: without a broker nothing comes back but what is retried."""
QUIET_WITH_BROKER_SECONDS: Final = 3.0 * VISIBILITY_SECONDS
TRACE_SECONDS: Final = 40.0
MOST_TRACES: Final = 30
"""Of the lost, that the console links to."""


@dataclass(frozen=True)
class Outcome:
    """What became of the requests of one variant under one fault."""

    variant: str
    fault: Fault
    accepted: int
    refused: int
    """Requests that were not answered by 200: the client knows."""
    done: int
    done_twice: int
    dead: int
    lost: int
    shown: int | None
    """Those of the lost that SkyWalking shows as failed; `None` where it was not asked."""
    unfinished: int | None
    """Traces of accepted requests in which the work has no good end."""


def suffer(  # noqa: PLR0913, PLR0917  # what it is about
    rig: Rig, variant: Variant, fault: Fault, count: int, oap: Oap | None, progress: Progress | None = None
) -> Outcome:
    """Send requests, let the fault happen when half are accepted, and count when all is quiet.

    Raises:
        RigError: something does not come back.
        OapError: OAP does not answer.
    """
    asyncio.run(send(rig.url + variant.path, WARM_UP, seconds=0, at_once=5))  # a pool's processes, connections
    rig.wait_until_idle(variant, QUIET_SECONDS)
    rig.forget()
    progress = progress or Progress(None)
    quiet = QUIET_WITH_BROKER_SECONDS if variant.broker else QUIET_SECONDS
    with progress.counting(rig, variant):
        progress.tell(step=f"sending {count} requests within {SENDING_SECONDS:.0f} s")
        sent = asyncio.run(_send(rig, variant, fault, count, progress))
        progress.tell(step=f"waiting until nothing happens any more, for {quiet:.0f} s at most", refused=_refused(sent))
        found = rig.wait_until_idle(variant, quiet)
    return _outcome(variant, fault, sent, found, oap, progress)


async def _send(rig: Rig, variant: Variant, fault: Fault, count: int, progress: Progress) -> list[Sent]:
    errors: list[BaseException] = []

    def strike() -> None:
        try:
            _strike(rig, variant, fault)
        except BaseException as error:  # noqa: BLE001  # told when the requests are through
            errors.append(error)

    thread = threading.Thread(target=strike)

    def each(answered: int) -> None:
        progress.tell(answered=answered)
        if answered == max(1, count // 2):
            progress.tell(step=f"{FAULTS[fault]}, while requests come in")
            thread.start()

    work = SHORT_WORK_SECONDS if variant.process in {"pool", "worker"} else WORK_SECONDS
    sent = await send(rig.url + variant.path, count, seconds=work, rate=count / SENDING_SECONDS, each=each)
    if thread.ident is not None:
        await asyncio.to_thread(thread.join)
    if errors:
        raise errors[0]
    return sent


def _refused(sent: list[Sent]) -> int:
    return sum(not one.succeeded for one in sent)


def _strike(rig: Rig, variant: Variant, fault: Fault) -> None:
    if fault == "broker":
        rig.broker.stop()
        if not rig.closed:
            rig.broker.start()
    elif fault == "kill" and variant.process == "pool":
        rig.kill_pool_process()
    else:
        part = "service" if variant.process == "pool" else variant.process
        rig.end(part, signal.SIGKILL if fault == "kill" else signal.SIGTERM)
        if not rig.closed:
            rig.start(part)


def _outcome(  # noqa: PLR0913, PLR0917  # what it is made of
    variant: Variant, fault: Fault, sent: list[Sent], found: Count, oap: Oap | None, progress: Progress
) -> Outcome:
    shown = unfinished = None
    answered = [one.trace_id for one in sent if one.succeeded]
    good = len(found.accepted & found.done)
    progress.tell(done=good, done_twice=len(found.done_twice), dead=len(found.dead), open=0, lost=len(found.lost))
    if oap is not None and variant.name != "blocking":
        progress.tell(step="looking in SkyWalking for each trace")

        def each(seen: Shown) -> None:
            traces = [{"id": trace, "failed": failed} for trace, failed in seen.unfinished(answered)[:MOST_TRACES]]
            progress.tell(shown=len(found.lost & seen.broken), traces=traces if found.lost else [])

        seen = look_for(oap, variant, answered, expected=min(good, len(answered)), seconds=TRACE_SECONDS, each=each)
        shown = len(found.lost & seen.broken)
        unfinished = len(answered) - seen.complete
    return Outcome(
        variant.name,
        fault,
        len(found.accepted),
        _refused(sent),
        len(found.accepted & found.done),
        len(found.done_twice),
        len(found.dead),
        len(found.lost),
        shown,
        unfinished,
    )
