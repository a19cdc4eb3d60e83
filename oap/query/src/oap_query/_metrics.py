"""Metrics, and what they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oap_query._errors import OapError, reads_answers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from oap_query._client import Oap


_ALL: Final = "query ($id: ID!, $limit: Int!) { found: findEndpoint(serviceId: $id, limit: $limit) { name } }"
_HEARD_OF: Final = """query ($id: ID!, $limit: Int!, $duration: Duration) {
    found: findEndpoint(serviceId: $id, limit: $limit, duration: $duration) { name } }"""


@dataclass(frozen=True)
class Metric:
    """One series to ask for: an expression of MQE and what it is of."""

    expression: str
    service: str
    endpoint: str | None = None
    instance: str | None = None
    normal: bool = True
    """Whether the service reports itself; `False` for what others report of, such as a broker or a database."""

    @property
    def entity(self) -> dict[str, Any]:
        """The entity as OAP wants it."""
        whole: dict[str, Any] = {"serviceName": self.service, "normal": self.normal}
        if self.endpoint is not None:
            return {**whole, "scope": "Endpoint", "endpointName": self.endpoint}
        if self.instance is not None:
            return {**whole, "scope": "ServiceInstance", "serviceInstanceName": self.instance}
        return {**whole, "scope": "Service"}


Points = dict[int, float]
"""Values by minute (ms since the epoch); minutes without a value are left out."""


@reads_answers
def read(oap: Oap, wanted: Sequence[Metric], start: datetime) -> list[Points]:
    """Read series from `start` (with a timezone) up to now, one point a minute, in one query.

    Raises:
        OapError: OAP does not answer, or has several series for one expression: a labelled metric without
            `aggregate_labels(…)` or `{label='…'}`.
    """
    if not wanted:
        return []
    parameters = ", ".join(f"$e{n}: String!, $o{n}: Entity!" for n in range(len(wanted)))
    parts = " ".join(
        f"m{n}: execExpression(expression: $e{n}, entity: $o{n}, duration: $duration) "
        "{ error results { values { id value } } }"
        for n in range(len(wanted))
    )
    variables: dict[str, Any] = {}
    for number, metric in enumerate(wanted):
        variables |= {f"e{number}": metric.expression, f"o{number}": metric.entity}
    found: list[Points] = [{} for _ in wanted]
    for duration in oap.durations(start, step="MINUTE"):
        text = f"query ($duration: Duration!, {parameters}) {{ {parts} }}"
        answer = oap.query(text, duration=duration, **variables)
        for number, points in enumerate(found):
            points.update(_points(answer[f"m{number}"], wanted[number].expression))
    return found


@reads_answers
def endpoints(oap: Oap, service: str, limit: int = 100, *, since: datetime | None = None) -> list[str]:
    """Return the names of a service's endpoints: its routes, and its background tasks.

    With `since` only those that OAP has heard of since then, as SkyWalking's UI lists them; an OAP before 10.2 does not
    know when that was, and gives all.
    """
    found = oap.service_id(service)
    if found is None:
        return []
    variables = {"id": found, "limit": limit}
    if since is not None:
        try:
            items = oap.query(_HEARD_OF, duration=oap.duration(since, step="MINUTE"), **variables)["found"]
        except OapError as error:
            if "UnknownArgument" not in str(error):
                raise
        else:
            return sorted(item["name"] for item in items)
    return sorted(item["name"] for item in oap.query(_ALL, **variables)["found"])


@reads_answers
def instances(oap: Oap, service: str, start: datetime) -> list[str]:
    """Return the names of the instances (processes) that a service has had since then."""
    found = oap.service_id(service)
    if found is None:
        return []
    text = """query ($id: ID!, $duration: Duration!) {
        found: listInstances(serviceId: $id, duration: $duration) { name } }"""
    return [item["name"] for item in oap.query(text, id=found, duration=oap.duration(start, step="MINUTE"))["found"]]


def _points(answer: dict[str, Any], expression: str) -> Points:
    """Take the values of one series; a metric that nobody has reported yet is an error to OAP, to us it has none."""
    if len(answer["results"]) > 1:
        message = f"{expression} has {len(answer['results'])} series: aggregate its labels, or say which one"
        raise OapError(message)
    return {
        int(item["id"]): float(item["value"])
        for result in answer["results"]
        for item in result["values"]
        if item["value"] is not None and item["id"]
    }
