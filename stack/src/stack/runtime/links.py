"""Where to look once the stack is up: the same table for both runtimes."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from stack.settings import DEFAULT_RUN_DIR

if TYPE_CHECKING:
    from rich.console import Console

    from stack.settings import Settings


def print_links(console: Console, settings: Settings, *, locust: bool) -> None:
    """Print where to look."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("console", settings.console_url, "every task as a bar, every trace a waterfall: paste an X-Trace-Id")
    table.add_row("service", f"{settings.service_url}/test", "answers at once, with X-Trace-Id; a 10 s task runs on")
    table.add_row("API", f"{settings.service_url}/docs", "every endpoint, to try out")
    if settings.has_ui:
        table.add_row("UI", settings.ui_url, f"SkyWalking's own; {_how_to_paste(settings)}")
    table.add_row("OAP", f"{settings.oap_url}/graphql", "SkyWalking's query API")
    table.add_row("Locust", settings.locust_url if locust else "", "" if locust else "`make load-ui` starts it")
    console.print(table)
    if settings.run_dir != DEFAULT_RUN_DIR:
        console.print(
            f"RUN_DIR={escape(shlex.quote(str(settings.run_dir)))} belongs to every further command too, or into .env"
        )
    console.print("next: `make verify` sends a request to every endpoint and draws its trace")


def _how_to_paste(settings: Settings) -> str:
    """Say what to do in SkyWalking's UI with the trace id of an answer."""
    if settings.runtime == "compose" and settings.ui == "horizon":
        return "/layer/general/trace?traceId=<X-Trace-Id> is a trace"
    if settings.runtime == "compose" and settings.storage == "banyandb":
        return "/traces/<X-Trace-Id> is a trace"
    return f"paste an X-Trace-Id into the Trace tab of {escape(settings.service_name)}"
