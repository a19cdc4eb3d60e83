"""What the pages show, and where it is read from: OAP's GraphQL and the demo service's HTTP interface."""

from tracing_console.data.feed import FAILED, RECOVERED, Feed
from tracing_console.data.measures import MINUTES, Claim, claims, most_at_once, trends
from tracing_console.data.service import Answer, Request, Service, ServiceError
from tracing_console.data.sources import OAP, SERVICE, UI, Sources
from tracing_console.data.ui_link import UiLink, ui_link

__all__ = [
    "FAILED",
    "MINUTES",
    "OAP",
    "RECOVERED",
    "SERVICE",
    "UI",
    "Answer",
    "Claim",
    "Feed",
    "Request",
    "Service",
    "ServiceError",
    "Sources",
    "UiLink",
    "claims",
    "most_at_once",
    "trends",
    "ui_link",
]
