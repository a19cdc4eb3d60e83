"""What every page has around its content: navigation, and a banner when OAP or the service does not work."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from nicegui import ui

from tracing_console.data import OAP, SERVICE
from tracing_console.pages.elements import WEB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracing_console.data import Sources

PAGES: Final = (
    ("/", "Timeline"),
    ("/running", "Running"),
    ("/traces", "Traces"),
    ("/try", "Try it"),
    ("/overview", "Overview"),
    ("/dead-letters", "Dead letters"),
    ("/alarms", "Alarms"),
    ("/crash", "Crash"),
    ("/faults", "Faults"),
    ("/incidents", "Incidents"),
)
REFRESH_SECONDS: Final = 2.0

_VERSION: Final = sha256((WEB / "console.css").read_bytes()).hexdigest()[:8]
_MARK: Final = (
    '<svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true"><rect width="32" height="32" rx="8" '
    'fill="var(--accent)"/><g stroke="#fff" stroke-width="3.2" stroke-linecap="round"><path d="M7 9.500h6"/>'
    '<path d="M10 16h14"/><path d="M15 22.500h10"/></g></svg>'
)


@contextmanager
def frame(sources: Sources, title: str, here: str, lead: str = "") -> Iterator[ui.label]:
    """Build a page around the elements made inside the `with` block; yield its heading."""
    ui.page_title(f"{title} · Background work, traced")
    ui.add_head_html(f'<link rel="stylesheet" href="/assets/console.css?{_VERSION}">')
    with tag("a", "skip").props('href="#main"'):
        ui.label("Skip to the content")
    with tag("header", "top"), tag("div", "wide bar"):
        with tag("a", "brand").props('href="/" aria-label="Background work, traced: timeline"'):
            ui.html(_MARK, sanitize=False)  # a constant
            text("span", "Background work, traced")
        with tag("nav").props('aria-label="Pages"'):
            for path, name in PAGES:
                link = text("a", name).props(f'href="{path}"')
                if path == here:
                    link.props('aria-current="page"')
        _search()
        with tag("div", "who").props('role="status"'):
            pills = {name: text("span", name, "pill") for name in ("OAP", "service")}
    banner = tag("div", "banner").props('role="alert"')
    with banner:
        sentence = text("span", "")
    banner.set_visibility(False)

    async def refresh() -> None:
        await sources.check()
        for name, pill in pills.items():
            works = sources.works(name)
            pill.classes(add="up" if works else "down", remove="down" if works else "up")
            pill.props["title"] = f"{name} {sources.problems[name] or 'works'}"
        sentence.text = _warning(sources)
        banner.set_visibility(bool(sentence.text))

    ui.timer(REFRESH_SECONDS, refresh, immediate=True)
    with tag("div", "wide").props("id=main tabindex=-1"):  # Quasar makes the <main> around it
        with tag("div", "title"):
            heading = text("h1", title)
            if lead:
                text("p", lead, "lead")
        yield heading


def tag(name: str, classes: str = "") -> ui.element:
    """Make an HTML element that holds others."""
    return ui.element(name).classes(classes)


def text(name: str, content: str, classes: str = "") -> ui.label:
    """Make an HTML element of text. The text is never read as markup."""
    label = ui.label(content).classes(classes)
    label.tag = name
    return label


def _search() -> None:
    with tag("form", "find").props('role="search"') as form:
        field = tag("input").props(
            'type="search" name="id" placeholder="Trace id (X-Trace-Id)" aria-label="Open a trace by its id" '
            'autocomplete="off" spellcheck="false"'
        )
    form.on(
        "submit.prevent",
        js_handler=f"() => {{ const id = document.getElementById('{field.html_id}').value.trim(); "
        "if (id) location.href = '/traces/' + encodeURIComponent(id); }",
    )


def _warning(sources: Sources) -> str:
    """Say what does not work, and what follows from it; nothing when all works."""
    settings = sources.settings
    parts = (
        (OAP, f"OAP at {settings.oap_url}", "Traces and metrics are not updated."),
        (SERVICE, f"The service at {settings.service_url}", "You can't send requests or see tasks and dead letters."),
    )
    sentences: list[str] = []
    for name, title, effect in parts:
        if not sources.works(name):
            seen = sources.seen.get(name)
            since = f" (last seen {seen.astimezone():%H:%M:%S})" if seen else ""
            sentences += [f"{title} {sources.problems[name]}{since}.", effect]
    if sentences:
        sentences.append("This page updates by itself when it is back; `make status` shows what runs.")
    return " ".join(sentences)


def trace_path(trace_id: str) -> str:
    """Return the path of a trace's page."""
    return f"/traces/{quote(trace_id, safe='')}"
