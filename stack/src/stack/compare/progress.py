"""How far `make crash` is, in a file that the console follows."""

from __future__ import annotations

import json
import os
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from stack.load import again_and_again

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tracing_claims.variants import Fault, Variant

    from stack.compare.rig import Rig

LOOK_SECONDS: Final = 0.3


class Progress:
    """What is known so far of one fault of one variant; written anew at each change.

    Args:
        path: the file, a JSON object; `None` writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}

    def begin(self, variant: Variant, fault: Fault, requests: int) -> None:
        """Forget the one before: so many requests are now sent to a variant, which gets a fault meanwhile."""
        self.tell(
            variant=variant.name,
            fault=fault,
            requests=requests,
            pid=os.getpid(),
            step="getting a service, a worker, a consumer and a broker ready",
            ended=False,
            error="",
            answered=0,
            refused=None,
            accepted=0,
            done=0,
            done_twice=0,
            dead=0,
            open=0,
            lost=None,
            shown=None,
            traces=[],
        )

    def tell(self, **values: Any) -> None:  # noqa: ANN401  # what JSON can hold
        """Write down what has changed."""
        if self.path is None:
            return
        with self._lock:
            self._known.update(values)
            beside = self.path.with_suffix(".new")
            beside.write_text(json.dumps(self._known))
            beside.rename(self.path)

    def counting(self, rig: Rig, variant: Variant) -> AbstractContextManager[None]:
        """Write down what the ledger says, again and again, meanwhile."""
        if self.path is None:
            return nullcontext()
        return again_and_again(lambda: self._count(rig, variant), LOOK_SECONDS)

    def _count(self, rig: Rig, variant: Variant) -> None:
        found = rig.count(variant)
        self.tell(
            accepted=len(found.accepted),
            done=len(found.accepted & found.done),
            done_twice=len(found.done_twice),
            dead=len(found.dead),
            open=len(found.lost),
        )
