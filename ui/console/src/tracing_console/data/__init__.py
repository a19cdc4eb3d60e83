"""What the pages show, and where it is read from: OAP's GraphQL and the demo service's HTTP interface."""

from tracing_console.data.feed import CRASHED, FAILED, RECOVERED, Feed
from tracing_console.data.flame import TaskProfile, frames, split
from tracing_console.data.measures import MINUTES, Claim, claims, most_at_once, trends
from tracing_console.data.orders import OrderError, Orders
from tracing_console.data.running import RunningTask, RunningTasks
from tracing_console.data.runs import Crash, LostTrace, Played, Side, last_crash, last_run
from tracing_console.data.service import Answer, LetterFilter, Request, Service, ServiceError
from tracing_console.data.sources import OAP, SERVICE, UI, Sources
from tracing_console.data.ui_link import UiLink, alarms_url, endpoint_url, service_url, tasks_url, ui_link

__all__ = [
    "CRASHED",
    "FAILED",
    "MINUTES",
    "OAP",
    "RECOVERED",
    "SERVICE",
    "UI",
    "Answer",
    "Claim",
    "Crash",
    "Feed",
    "LetterFilter",
    "LostTrace",
    "OrderError",
    "Orders",
    "Played",
    "Request",
    "RunningTask",
    "RunningTasks",
    "Service",
    "ServiceError",
    "Side",
    "Sources",
    "TaskProfile",
    "UiLink",
    "alarms_url",
    "claims",
    "endpoint_url",
    "frames",
    "last_crash",
    "last_run",
    "most_at_once",
    "service_url",
    "split",
    "tasks_url",
    "trends",
    "ui_link",
]
