"""Links into SkyWalking's own UI. Which of its pages can show a trace depends on OAP's version and storage."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from oap_query import Oap

    from tracing_console.settings import Settings

TRACE_TAB: Final = "/dashboard/GENERAL/Service/{service_id}/General-Service/tab/4"
"""The Trace tab of a service in the classic UI (10.1 to 10.4). Traces are found there by their id."""
WHOLE_TRACES: Final = (10, 3)
"""The first OAP that knows the query `hasQueryTracesV2Support`. A later UI over an earlier OAP shows an empty page."""


@dataclass(frozen=True)
class UiLink:
    """A link into SkyWalking's UI: its address, its text, and what to do on that page."""

    url: str
    words: str
    advice: str = ""


def service_url(settings: Settings, service: str) -> str:
    """Return the address of a service's page in the UI."""
    service_id = quote(_service_id(service), safe="")
    if settings.has_classic_ui:
        return f"{settings.ui_url}/dashboard/GENERAL/Service/{service_id}/General-Service"
    return f"{settings.ui_url}/layer/general/service?service={service_id}"


def endpoint_url(settings: Settings, service: str, endpoint: str) -> str:
    """Return the address of an endpoint's page in the UI. A task is an endpoint there."""
    service_id = _service_id(service)
    if settings.has_classic_ui:
        endpoint_id = quote(f"{service_id}_{_encoded(endpoint)}", safe="")
        return (
            f"{settings.ui_url}/dashboard/GENERAL/Endpoint/{quote(service_id, safe='')}/{endpoint_id}/General-Endpoint"
        )
    query = urlencode({"service": service_id, "endpoint": endpoint})
    return f"{settings.ui_url}/layer/general/endpoint?{query}"


def tasks_url(settings: Settings, service: str) -> str:
    """Return the address of the UI's page of background tasks: a dashboard that this stack brings along."""
    if settings.has_classic_ui:
        service_id = quote(_service_id(service), safe="")
        return f"{settings.ui_url}/dashboard/GENERAL/Service/{service_id}/Background-Tasks"
    return f"{settings.ui_url}/overview/background-tasks"


def alarms_url(settings: Settings) -> str:
    """Return the address of the UI's list of alarms."""
    return f"{settings.ui_url}{'/alerting' if settings.has_classic_ui else '/alarms'}"


def _service_id(service: str) -> str:
    return f"{_encoded(service)}.1"  # 1: a service of its own, and not one that others call only


def _encoded(name: str) -> str:
    return b64encode(name.encode()).decode()


def ui_link(settings: Settings, oap: Oap, trace_id: str, service: str) -> UiLink:
    """Return a link to the page of the UI that can show a trace; `service` has a segment in it.

    Raises:
        OapError: OAP does not answer.
    """
    # Horizon uses whichever trace API OAP has; the classic UI's page of one trace knows only the newer one.
    if not settings.has_classic_ui or oap.has_whole_traces:
        return UiLink(settings.ui_link(trace_id), "Open in the SkyWalking UI")
    service_id = oap.service_id(service)
    path = TRACE_TAB.format(service_id=quote(service_id, safe="")) if service_id else ""
    advice = "There, paste the id into Trace ID and choose the trace’s time. (Its page of one trace needs BanyanDB.)"
    if _is_early(oap.version):
        advice += f" The UI must be {oap.version} as OAP is: a newer one shows an empty page."
    return UiLink(f"{settings.ui_url}{path}", f"Find it in the SkyWalking UI, in the Trace tab of {service}", advice)


def _is_early(version: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < WHOLE_TRACES
