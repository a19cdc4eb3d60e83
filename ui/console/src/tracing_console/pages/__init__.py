"""The console's pages, one module each; `frame` is what all of them have around their content."""

from tracing_console.pages import (
    alarms,
    crash,
    dead_letters,
    faults,
    incidents,
    overview,
    running,
    timeline,
    trace,
    traces,
    try_it,
)
from tracing_console.pages.elements import WEB

PAGES = (timeline, running, traces, trace, try_it, overview, dead_letters, alarms, crash, faults, incidents)
"""Each has `add(sources)`, which puts its page onto NiceGUI's app."""

__all__ = ["PAGES", "WEB"]
