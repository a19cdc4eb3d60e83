"""How far one fault of one variant is, in a file that the console follows while it happens."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo_service.variants import Variant

    from stack.compare.rig import Rig
    from stack.crash import Fault

LOOK_SECONDS: Final = 0.3


class Progress:
    """What is known so far; written anew at each change.

    Args:
        path: the file, a JSON object; `None` writes nothing.
        variant: which one.
        fault: what happens to it.
        requests: how many are sent.
    """

    def __init__(self, path: Path | None, variant: Variant, fault: Fault, requests: int) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {
            "variant": variant.name,
            "fault": fault,
            "requests": requests,
            "began": time.time(),
            "step": "starting a service, a worker, a consumer and a broker",
            "ended": False,
            "error": "",
            "answered": 0,
            "refused": None,
            "accepted": 0,
            "done": 0,
            "done_twice": 0,
            "dead": 0,
            "open": 0,
            "lost": None,
            "shown": None,
            "traces": [],
        }

    def tell(self, **values: Any) -> None:  # noqa: ANN401  # what JSON can hold
        """Write down what has changed."""
        if self.path is None:
            return
        with self._lock:
            self._known.update(values)
            beside = self.path.with_suffix(".new")
            beside.write_text(json.dumps(self._known))
            beside.rename(self.path)

    @contextmanager
    def counting(self, rig: Rig, variant: Variant) -> Iterator[None]:
        """Write down what the ledger says, again and again, meanwhile."""
        over = threading.Event()
        thread = threading.Thread(target=self._count, args=(rig, variant, over), daemon=True)
        if self.path is not None:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if self.path is not None:
                thread.join()

    def _count(self, rig: Rig, variant: Variant, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            found = rig.count(variant)
            self.tell(
                accepted=len(found.accepted),
                done=len(found.accepted & found.done),
                done_twice=len(found.done_twice),
                dead=len(found.dead),
                open=len(found.lost),
            )
