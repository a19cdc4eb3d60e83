"""`/dead-letters`: tasks that failed for good; replay and delete, one by one or all that fit a filter."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from tracing_console.data import LetterFilter, ServiceError
from tracing_console.pages.elements import Grid
from tracing_console.pages.forms import choice, entry, names_or_all, options
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from tracing_console.data import Sources

REFRESH_SECONDS: Final = 5.0
MAX_LISTED: Final = 1000
"""Read from the service, the latest ones."""
MAX_ROWS: Final = 200
CUT: Final = "Its arguments were too large to store."
COLUMNS: Final = (
    {"key": "died", "label": "Died"},
    {"key": "name", "label": "Task"},
    {"key": "error", "label": "Error"},
    {"key": "attempts", "label": "Attempts", "align": "right"},
    {"key": "actions", "label": "Actions", "align": "right"},
)


def add(sources: Sources) -> None:
    """Add the page."""

    @ui.page("/dead-letters")
    def dead_letters() -> None:
        lead = "Tasks that failed for good. The service keeps them until they are replayed or deleted."
        with frame(sources, "Dead letters", "/dead-letters", lead):
            page = _DeadLetters(sources)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


class _DeadLetters:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.wanted = LetterFilter()
        self.letters: list[dict[str, Any]] = []
        self.total = 0
        self.choices: dict[str, list[str]] = {}
        self._form()
        with tag("div", "bulk"):
            self.count = text("span", "", "note").props('role="status"')
            self.replay = text("button", "Replay all", "button small").props('type="button"')
            self.delete = text("button", "Delete all", "button small danger").props('type="button"')
        self.replay.on("click", self.confirm_replay)
        self.delete.on("click", self.confirm_delete)
        self._show_bulk(shown=False, count=0)
        with tag("div", "card"):
            self.grid = Grid(COLUMNS, "Reading the dead letters.")
            self.grid.on_action(self.act)

    async def refresh(self) -> None:
        """Read the dead letters again."""
        try:
            answer = await self.sources.service.dead_letters(MAX_LISTED)
            endpoints = await self.sources.service.endpoints()
        except ServiceError as error:
            self.grid.show_when_empty(f"{error}.")
            return
        self.letters, self.total = (answer["dead_letters"], answer["total"]) if answer else ([], 0)
        self._fill()
        fitting = [letter for letter in self.letters if self.wanted.fits(letter)]
        empty = "No task has failed for good." if answer else "This service keeps no dead letters."
        self.grid.show_when_empty("No dead letter matches." if self.letters else empty)
        self.grid.show([letter_row(letter) for letter in fitting[:MAX_ROWS]])
        bulk = {("POST", "/dead-letters/replay"), ("DELETE", "/dead-letters")} <= endpoints
        self._show_bulk(shown=bulk and bool(fitting), count=len(fitting))

    async def act(self, action: str, task_id: str) -> None:
        """Replay or delete one dead letter."""
        try:
            if action == "replay":
                new = await self.sources.service.replay(task_id)
                ui.notify(f"Runs again as task {new}.", type="positive")
            elif action == "delete":
                await self.sources.service.discard(task_id)
                ui.notify("The dead letter is deleted.")
        except ServiceError as error:
            ui.notify(str(error), type="negative")
        await self.refresh()

    async def choose(self, event: Any) -> None:  # noqa: ANN401  # NiceGUI's own
        """Take the filter's values."""
        self.wanted = LetterFilter(*(str(value or "") for value in event.args))
        await self.refresh()

    async def confirm_replay(self) -> None:
        """Replay all that fit, after a question."""
        wanted = self.wanted
        if await _confirmed(f"Run {self._meant()} again?", "Each runs as a new task, in a trace of its own.", "Replay"):
            try:
                count, skipped, refused = await self.sources.service.replay_all(wanted)
            except ServiceError as error:
                ui.notify(str(error), type="negative")
            else:
                words = f" {skipped:,} could not be run and stay." if skipped else ""
                words += f" The others stay: {refused}." if refused else ""
                ui.notify(f"{count:,} tasks run again.{words}", type="warning" if words else "positive")
            await self.refresh()

    async def confirm_delete(self) -> None:
        """Delete all that fit, after a question."""
        wanted = self.wanted
        if await _confirmed(f"Delete {self._meant()}?", "This can't be undone.", "Delete", danger=True):
            try:
                count = await self.sources.service.discard_all(wanted)
            except ServiceError as error:
                ui.notify(str(error), type="negative")
            else:
                ui.notify(f"{count:,} dead letters are deleted.", type="positive")
            await self.refresh()

    def _form(self) -> None:
        with tag("form", "tools").props('style="margin-bottom: 16px"') as form:
            self.name = choice("Task", {})
            self.error = choice("Error", {})
            self.reason = choice("Reason", {})
            after = entry("Died from").props('type="datetime-local" step="1"')
            before = entry("Died until").props('type="datetime-local" step="1"')
            text("button", "Clear", "button").props('type="reset"')
        fields = [item.html_id for item in (self.name, self.error, self.reason, after, before)]
        # The browser knows its timezone, the console does not.
        values = (
            f"() => setTimeout(() => {{ const at = {json.dumps(fields)}.map(id => document.getElementById(id).value);"
            "emit(...at.slice(0, 3), ...at.slice(3).map(time => time && new Date(time).toISOString())); })"
        )
        form.on("change", self.choose, js_handler=values)
        form.on("reset", self.choose, js_handler=values)
        form.on("submit.prevent", self.choose, js_handler=values)

    def _fill(self) -> None:
        """Offer the values that the letters have."""
        selects = {"name": self.name, "error": self.error, "reason": self.reason}
        for key, select in selects.items():
            chosen = getattr(self.wanted, key)
            values = {_error_type(letter) if key == "error" else str(letter[key]) for letter in self.letters} | {chosen}
            choices = sorted(values - {""})
            if choices != self.choices.get(key):
                self.choices[key] = choices
                options(select, names_or_all(choices), chosen)

    def _show_bulk(self, *, shown: bool, count: int) -> None:
        self.replay.set_visibility(shown)
        self.delete.set_visibility(shown)
        more = (
            f" of the latest {len(self.letters):,}; there are {self.total:,}" if self.total > len(self.letters) else ""
        )
        noun = "dead letter" if count == 1 else "dead letters"
        self.count.text = f"{count:,} {noun}{more}." if count else ""

    def _meant(self) -> str:
        """Say in words which dead letters are meant."""
        wanted = self.wanted
        count = sum(wanted.fits(letter) for letter in self.letters)
        several = "all dead letters" if self.total > len(self.letters) else f"{count:,} dead letters"
        words = ["1 dead letter" if several == "1 dead letters" else several]
        if wanted.name:
            words.append(f"of {wanted.name}")
        if wanted.error:
            words.append(f"with {wanted.error}")
        if wanted.reason:
            words.append(f"that {wanted.reason}" if wanted.reason != "interrupted" else "that were interrupted")
        if wanted.after:
            words.append(f"from {_local(wanted.after)} on")
        if wanted.before:
            words.append(f"until {_local(wanted.before)}")
        return " ".join(words)


async def _confirmed(question: str, consequence: str, label: str, *, danger: bool = False) -> bool:
    """Ask the reader, in a dialog that Escape closes."""
    with ui.dialog().props('aria-label="Confirmation"') as dialog, tag("div", "card confirm"):
        text("h2", question)
        text("p", consequence)
        with tag("div", "actions"):
            no = text("button", "Back", "button").props('type="button" autofocus')
            yes = text("button", label, f"button {'danger' if danger else 'primary'}").props('type="button"')
        no.on("click", lambda: dialog.submit(False))  # what the dialog returns
        yes.on("click", lambda: dialog.submit(True))
    answer = await dialog
    dialog.delete()
    return bool(answer)


def letter_row(letter: dict[str, Any]) -> dict[str, Any]:
    """Make a row of the table of dead letters."""
    error = letter.get("error") or {}
    trace_id = letter.get("trace_id")
    arguments = json.dumps(letter.get("arguments"), indent=1, ensure_ascii=False)
    return {
        "key": letter["id"],
        "died": {"time": datetime.fromisoformat(letter["died_at"]).timestamp() * 1000},
        "name": {
            "text": letter["name"],
            "href": trace_path(trace_id) if trace_id else "",
            "note": f"{letter['reason']}; task {letter['id']}",
        },
        "error": {
            "text": ": ".join(part for part in (error.get("type"), error.get("message")) if part),
            "summary": "Arguments and stack trace",
            "more": f"{arguments}\n\n{error.get('stack') or ''}",
        },
        "attempts": str(letter["attempts"]),
        "actions": {
            "actions": [
                {"name": "replay", "label": "Replay", "off": "" if letter.get("replayable", True) else CUT},
                {"name": "delete", "label": "Delete", "sure": "Really delete?", "tone": "danger"},
            ]
        },
    }


def _error_type(letter: dict[str, Any]) -> str:
    return str((letter.get("error") or {}).get("type") or "")


def _local(iso: str) -> str:
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"
