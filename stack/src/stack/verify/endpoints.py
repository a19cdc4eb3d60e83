"""Whether SkyWalking's UI lists the endpoints that `make verify` called, tasks included."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from oap_query import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from oap_query import Oap, Span

TIMEOUT_SECONDS: Final = 15.0
"""So long after its last trace an endpoint must be listed."""
MOST_ENDPOINTS: Final = 1000
"""More endpoints than any service has."""


def check_endpoints(
    oap: Oap, service: str, spans: Iterable[Span], began: datetime, timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[bool, str]:
    """Look for the endpoint of each segment's first span as the UI does: among those that OAP saw since `began`.

    Raises:
        OapError: OAP does not answer.
    """
    called = {span.name for span in spans if span.span_id == 0 and span.service == service}
    deadline = time.monotonic() + timeout_seconds
    while lost := called.difference(endpoints(oap, service, MOST_ENDPOINTS, since=began)):
        if time.monotonic() > deadline:
            names = ", ".join(sorted(lost))
            return False, f"findEndpoint lacks {len(lost)} of {len(called)} (docs/upstream-last-ping.md): {names}"
        time.sleep(0.5)
    return True, f"findEndpoint has all {len(called)} of them"
