"""`/incidents`: four incidents to play, each in four steps, before and after one switch."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fastapi import HTTPException
from nicegui import ui
from tracing_claims.incidents import BY_NAME, INCIDENTS, TONES

from tracing_console.data import OrderError, last_run
from tracing_console.pages.elements import Picture
from tracing_console.pages.frame import frame, tag, text, trace_path

if TYPE_CHECKING:
    from tracing_claims.incidents import Incident

    from tracing_console.data import Played, Side, Sources

REFRESH_SECONDS: Final = 1.0
SIDES: Final = ("before", "after")


def add(sources: Sources) -> None:
    """Add the pages."""

    @ui.page("/incidents")
    def incidents() -> None:
        lead = (
            "Four ways in which background tasks go wrong: the symptom, the trace, one switch, the same picture again."
        )
        with frame(sources, "Incidents", "/incidents", lead), tag("div", "presets"):
            for incident in INCIDENTS:
                _card(incident, last_run(sources.settings.run_dir, incident.name))

    @ui.page("/incidents/{name}")
    def incident(name: str) -> None:
        wanted = BY_NAME.get(name)
        if wanted is None:
            raise HTTPException(404, f"There is no incident of this name. They are {', '.join(BY_NAME)}.")
        with frame(sources, wanted.title, "/incidents", wanted.story):
            page = _Incident(sources, wanted)
            ui.timer(REFRESH_SECONDS, page.refresh, immediate=True)


def _card(incident: Incident, run: Played | None) -> None:
    with tag("section", "card preset"):
        text("h3", incident.title)
        text("p", incident.story)
        text("code", f"{incident.before} → {incident.after}")
        if run is not None and run.before and run.after:
            text("span", f"{_value(run.before)} → {_value(run.after)}", "badge good")
        text("a", "Open", "button primary").props(
            f'href="/incidents/{incident.name}" aria-label="Open: {incident.title}"'
        )


class _Incident:
    """The page of one incident. It follows a run, whoever has started it."""

    def __init__(self, sources: Sources, incident: Incident) -> None:
        self.sources, self.incident = sources, incident
        self.shown: Played | None = None
        text("p", f"Scale: {incident.scale} Played by services of its own; the stack’s service is left alone.", "note")
        with tag("div", "order"):
            self.button = text("button", "Play it", "button primary").props('type="button"')
            self.button.on("click", self.play)
            self.button.set_visibility(sources.orders.possible)
            text("code", f"make incident NAME={incident.name}")
            self.status = text("span", "", "note").props('role="status"')
        self._step(1, "The symptom", incident.symptom)
        self.symptom = tag("div", "tiles")
        self._step(2, "Find it in the trace", incident.search)
        self.traces = tag("p", "note")
        self._step(3, "One switch", incident.switch)
        with tag("p", "switch"):
            text("code", incident.before)
            text("span", "→")
            text("code", incident.after)
        self._step(4, "The same picture again", "")
        with tag("div", "sides"):
            self.sides = {when: tag("section", "card side") for when in SIDES}
        for when in SIDES:
            self._show_side(when, None, 1.0)
        self.legend = tag("div", "legend")

    async def play(self) -> None:
        """Have the runner play it."""
        try:
            await self.sources.orders.give("incident", self.incident.name)
        except OrderError as error:
            ui.notify(str(error), type="negative")
        await self.refresh()

    async def refresh(self) -> None:
        """Read the run again and show what is new."""
        run = await asyncio.to_thread(last_run, self.sources.settings.run_dir, self.incident.name)
        self._show_state(run)
        if run == self.shown:
            return
        self.shown = run
        before, after = (run.before, run.after) if run else (None, None)
        self.symptom.clear()
        self.traces.clear()
        if before:
            with self.symptom:
                _tile(before, "bad")
                if after:
                    _tile(after, "good")
            with self.traces:
                text("a", "Open the trace of the run before the switch").props(f'href="{trace_path(before.trace_id)}"')
        seconds = max((piece.end for side in (before, after) if side for lane in side.lanes for piece in lane.pieces),
                      default=1.0)  # fmt: skip
        for when, side in (("before", before), ("after", after)):
            self._show_side(when, side, seconds)
        self._show_legend([side for side in (before, after) if side])

    def _show_state(self, run: Played | None) -> None:
        order = self.sources.orders.running
        playing = run is not None and run.state == "running"
        if order or playing:
            self.button.props["disabled"] = True
        else:
            self.button.props.pop("disabled", None)
        self.button.update()
        if playing and run is not None:
            self.status.text = f"Plays for {time.time() - run.began_at_ms / 1000:.0f} s: {run.step}"
        elif order:
            self.status.text = f"“{order}” runs."
        elif not self.sources.orders.possible:
            self.status.text = (
                f"This console can’t see the run folder: .run/incidents/{self.incident.name}/ has it all."
            )
        elif run is None:
            self.status.text = "Not played yet. It takes about a minute."
        elif run.state == "failed":
            self.status.text = f"The last run was not played to its end: {run.step}"
        else:
            self.status.text = (
                f"Played at {time.strftime('%H:%M:%S, %Y-%m-%d', time.localtime(run.began_at_ms / 1000))}."
            )

    def _show_side(self, when: str, side: Side | None, seconds: float) -> None:
        setting = self.incident.before if when == "before" else self.incident.after
        self.sides[when].clear()
        with self.sides[when]:
            with tag("h3"):
                text("span", f"{when}: ")
                text("code", setting)
            if side is None:
                text("div", "Not played yet.", "empty small")
                return
            with tag("dl", "pairs"):
                for what, value in {side.symptom.what: _value(side), **side.facts}.items():
                    text("dt", what)
                    text("dd", value)
            Picture(f"{when}: {setting}", [lane.model_dump() for lane in side.lanes], seconds)
            text("a", "A trace of it").props(f'href="{trace_path(side.trace_id)}"')

    def _show_legend(self, sides: list[Side]) -> None:
        used = {piece.tone for side in sides for lane in side.lanes for piece in lane.pieces}
        self.legend.clear()
        with self.legend:
            for tone, meaning in TONES.items():
                if tone in used:
                    with tag("span", "key"):
                        tag("i", f"tone {tone}")
                        text("span", meaning)

    @staticmethod
    def _step(number: int, title: str, words: str) -> None:
        text("h2", f"{number}. {title}")
        if words:
            text("p", words, "step")


def _tile(side: Side, tone: str) -> None:
    with tag("div", f"tile {tone}"):
        text("b", _value(side))
        text("span", f"{side.symptom.what}, {side.setting}")


def _value(side: Side) -> str:
    return f"{side.symptom.value:,.0f} {side.symptom.unit}"
