"""The rows of the waterfall: spans that have ended, and tasks that still run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from oap_query import build

from tracing_console.data import endpoint_url, service_url, tasks_url
from tracing_console.pages.profile import profile_path

if TYPE_CHECKING:
    from oap_query import Span

    from tracing_console.data import RunningTask
    from tracing_console.settings import Settings


@dataclass(frozen=True)
class Links:
    """Makes links from a service or an endpoint to the console's pages and to SkyWalking's UI."""

    settings: Settings
    has_ui: bool

    def service(self, service: str) -> list[dict[str, Any]]:
        """Return the links of a service."""
        links: list[dict[str, Any]] = [
            {"text": "traces of the service", "href": f"/traces?{urlencode({'service': service})}"}
        ]
        if self.has_ui:
            for what, url in (("service", service_url), ("background tasks", tasks_url)):
                href = url(self.settings, service)
                links.append({"text": f"{what} in the SkyWalking UI", "href": href, "outside": True})
        return links

    def endpoint(self, service: str, endpoint: str) -> list[dict[str, Any]]:
        """Return the links of an endpoint; a task is one too."""
        query = urlencode({"service": service, "endpoint": endpoint})
        links: list[dict[str, Any]] = [{"text": "traces like this", "href": f"/traces?{query}"}]
        if self.has_ui:
            href = endpoint_url(self.settings, service, endpoint)
            links.append({"text": "endpoint in the SkyWalking UI", "href": href, "outside": True})
        return links


def span_rows(spans: list[Span], links: Links) -> list[dict[str, Any]]:
    """Make rows of spans, parents before their children; times in ms since the epoch."""
    names = {(span.segment_id, span.span_id): span.name for span in spans}
    return [
        {
            "key": f"{span.segment_id} {span.span_id}",
            "depth": depth,
            "name": span.name,
            "kind": span.kind,
            "component": "" if span.component == "Unknown" else span.component,
            "peer": span.peer,
            "service": span.service,
            "instance": span.instance,
            "segment": span.segment_id,
            "span": span.span_id,
            "start": span.start,
            "duration": span.duration,
            "state": "crashed" if is_crashed(span) else "",
            "note": f"killed after {span.duration:,} ms: its process was alive until then",
            "error": span.error,
            "badge": _badge(span),
            "cancel": "",
            "profile": "",
            "refs": [
                {"segment": segment, "span": number, "type": kind, "name": names.get((segment, number), "")}
                for segment, number, kind in span.refs
            ],
            "tags": sorted(span.tags.items()),
            "logs": [
                {
                    "time": moment,
                    "event": log.get("event", ""),
                    "data": [pair for pair in log.items() if pair[0] != "event"],
                }
                for moment, log in zip(span.log_times, span.logs, strict=False)
            ],
            "links": (links.endpoint(span.service, span.name) if span.span_id == 0 else [])
            + links.service(span.service),
        }
        for root in build(spans)
        for depth, node in root.walk()
        for span in [node.span]
    ]


def is_crashed(span: Span) -> bool:
    """Say whether a span was closed after its process had been killed."""
    return span.error and span.tags.get("task.outcome") == "crashed"


def running_rows(
    tasks: list[RunningTask], links: Links, depth: int, cancellable: str, profiled: str = ""
) -> list[dict[str, Any]]:
    """Make rows of tasks whose end is not known, the oldest first.

    `cancellable` is the service that can cancel its tasks, `profiled` that which can say what they wait for.
    """
    return [
        {
            "key": f"running {task.segment_id}",
            "depth": depth,
            "name": task.name,
            "kind": "last heard of at " + _clock(task.alive) if item.lost else "runs now",
            "component": "",
            "peer": "",
            "service": task.service,
            "instance": task.instance,
            "segment": task.segment_id,
            "span": 0,
            "start": task.start,
            "duration": task.alive - task.start if item.lost else 0,  # what runs lasts until the browser's now
            "state": "lost" if item.lost else "running",
            "note": "its process has sent nothing since then: how it ended is not known" if item.lost else "runs now",
            "error": False,
            "badge": {"text": "no news", "tone": "warn"} if item.lost else {"text": "running", "tone": "info"},
            "cancel": task.task_id if task.service == cancellable and not item.lost else "",
            "profile": profile_path(task.name) if task.service == profiled and not item.lost else "",
            "refs": [],
            "tags": [("task.id", task.task_id)],
            "logs": [],
            "links": links.endpoint(task.service, task.name) + links.service(task.service),
        }
        for item in sorted(tasks, key=lambda item: item.task.start)
        for task in [item.task]
    ]


def _badge(span: Span) -> dict[str, str] | None:
    if is_crashed(span):
        return {"text": "crashed", "tone": "bad"}
    if span.tags.get("task.outcome") == "cancelled":  # on request, which is no error of the task
        return {"text": "cancelled", "tone": "bad" if span.error else "warn"}
    return {"text": "failed", "tone": "bad"} if span.error else None


def _clock(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment / 1000).astimezone():%H:%M:%S}"
