"""Where SkyWalking's own UI shows a trace: which of its pages works depends on the OAP behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from oap_query import Oap

    from tracing_console._settings import Settings

TRACE_TAB: Final = "/dashboard/GENERAL/Service/{service_id}/General-Service/tab/4"
"""The classic UI's traces of a service, where one can be found by its id (10.1 to 10.4)."""
WHOLE_TRACES: Final = (10, 3)
"""The first OAP that can be asked whether it has whole traces; UIs that do ask stay black over an earlier one."""


@dataclass(frozen=True)
class UiLink:
    """A link into SkyWalking's UI: its address, its words, and what the reader must do there."""

    url: str
    words: str
    advice: str = ""


def ui_link(settings: Settings, oap: Oap, trace_id: str, service: str) -> UiLink:
    """Link a trace, one of whose segments is of `service`, to the page of the UI that can show it.

    Raises:
        OapError: OAP does not answer.
    """
    # Horizon asks OAP by itself which of the two APIs it has; the classic UI's page of one trace knows only the newer.
    if not settings.has_classic_ui or oap.has_whole_traces:
        return UiLink(settings.ui_link(trace_id), "Open in the SkyWalking UI")
    service_id = oap.service_id(service)
    path = TRACE_TAB.format(service_id=quote(service_id, safe="")) if service_id else ""
    advice = "Its page of one trace needs BanyanDB: paste the id into Trace ID there, and pick the trace's time."
    if _is_early(oap.version):
        advice += f" The UI must be {oap.version} as OAP is: a newer one stays black."
    return UiLink(f"{settings.ui_url}{path}", f"Find it in the SkyWalking UI, in the Trace tab of {service}", advice)


def _is_early(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < WHOLE_TRACES
