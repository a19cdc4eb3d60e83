"""What every page has around it: navigation, who answers, and a banner when somebody does not."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from nicegui import ui

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracing_console._console import Console

PAGES: Final = (("/", "Timeline"), ("/traces", "Traces"), ("/try", "Try it"), ("/overview", "Overview"))
LOOK: Final = 2.0
"""s between two looks at who answers."""

_STYLE: Final = Path(__file__).parent / "web" / "console.css"
_VERSION: Final = sha256(_STYLE.read_bytes()).hexdigest()[:8]
_MARK: Final = (
    '<svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true"><rect width="32" height="32" rx="8" '
    'fill="var(--accent)"/><g stroke="#fff" stroke-width="3.2" stroke-linecap="round"><path d="M7 9.500h6"/>'
    '<path d="M10 16h14"/><path d="M15 22.500h10"/></g></svg>'
)


@contextmanager
def frame(console: Console, title: str, here: str, lead: str = "") -> Iterator[ui.label]:
    """Build a page around what is made within; yield its heading."""
    ui.page_title(f"{title} · Background work, traced")
    ui.add_head_html(f'<link rel="stylesheet" href="/assets/console.css?{_VERSION}">')
    with tag("a", "skip").props('href="#main"'):
        ui.label("Skip to the content")
    with tag("header", "top"), tag("div", "wide bar"):
        with tag("a", "brand").props('href="/" aria-label="Background work, traced: timeline"'):
            ui.html(_MARK, sanitize=False)  # our own drawing
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

    async def look() -> None:
        up = await console.check()
        for name, pill in pills.items():
            pill.classes(add="up" if up[name] else "down", remove="down" if up[name] else "up")
            pill.props(f'title="{name} {"answers" if up[name] else "does not answer"}"')
        sentence.text = _complaint(console)
        banner.set_visibility(bool(sentence.text))

    ui.timer(LOOK, look, immediate=True)
    with tag("div", "wide").props("id=main tabindex=-1"):  # Quasar's page around it is the <main>
        with tag("div", "title"):
            heading = text("h1", title)
            if lead:
                text("p", lead, "lead")
        yield heading


def tag(name: str, classes: str = "") -> ui.element:
    """Make an HTML element to put others into."""
    return ui.element(name).classes(classes)


def text(name: str, content: str, classes: str = "") -> ui.label:
    """Make an HTML element of text, which is always shown as it is and never as markup."""
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


def _complaint(console: Console) -> str:
    away = [name for name in ("OAP", "service") if not console.up[name]]
    if not away:
        return ""
    urls = {"OAP": console.settings.oap_url, "service": console.settings.service_url}
    what = " and ".join(f"{'the ' if name == 'service' else ''}{name} at {urls[name]}" for name in away)
    what = what[0].upper() + what[1:]
    verb = "does not answer" if len(away) == 1 else "do not answer"
    seen = console.seen.get(away[0])
    since = f" (last seen {seen.astimezone():%H:%M:%S})" if seen else ""
    loss = (
        "Traces and metrics stand still"
        if "OAP" in away
        else "Nothing can be tried, and tasks and dead letters can't be read"
    )
    return f"{what} {verb}{since}. {loss}; the page goes on by itself as soon as it can. `make status` shows what runs."


def trace_path(trace_id: str) -> str:
    """Where the console shows a trace."""
    return f"/traces/{quote(trace_id, safe='')}"
