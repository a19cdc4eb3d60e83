"""`make incident`: list the incidents, or play one and show it before and after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from oap_query import Oap, OapError, build
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from tracing_claims.incidents import BY_NAME, INCIDENTS

from stack.incidents.drawn import lanes_as_text, legend
from stack.incidents.pictures import draw
from stack.incidents.player import folder_of, play
from stack.incidents.plays import PLAYS
from stack.incidents.stage import PlayError
from stack.settings import UsageError
from stack.terminal import new_console
from stack.verify.waterfall import waterfall

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from tracing_claims.incidents import Incident

    from stack.incidents.record import Record, Side
    from stack.settings import Settings

GAP: Final = 4
"""Columns between before and after."""


def incident(settings: Settings, name: str = "") -> int:
    """List the incidents, or play the one of this name; 0 when it was played to its end.

    Raises:
        UsageError: there is none of this name.
    """
    console = new_console()
    if not name:
        _list(console)
        return 0
    if name not in BY_NAME:
        raise UsageError(f"there is no incident {name!r}: they are {', '.join(BY_NAME)}")
    wanted = BY_NAME[name]
    console.print(f"\n[bold]{wanted.title}[/]\n{escape(wanted.story)}\n[dim]{escape(wanted.scale)}[/]\n")
    began = time.monotonic()
    try:
        with console.status("starting") as status:

            def say(sentence: str) -> None:
                status.update(escape(sentence))
                if not console.is_terminal:
                    console.print(escape(sentence))

            record = play(settings, wanted, say)
        _show(console, settings, wanted, record)
    except (PlayError, OapError) as error:
        console.print(f"[red]it can't go on:[/] {escape(str(error))}")
        return 1
    console.print(f"\nplayed in {time.monotonic() - began:.0f} s")
    return 0


def _list(console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("make incident NAME=", "what happens", "takes about"):
        table.add_column(title)
    for one in INCIDENTS:
        table.add_row(one.name, one.title, f"{PLAYS[one.name].seconds:.0f} s")
    console.print(table)


def _show(console: Console, settings: Settings, wanted: Incident, record: Record) -> None:
    before, after = record.before, record.after
    assert before is not None and after is not None  # noqa: PT018, S101  # it was played to its end
    folder = folder_of(settings, wanted.name)
    draw(wanted, before, after, folder / "before-after.png")
    console.print(f"[bold]1. The symptom.[/] {escape(wanted.symptom)}")
    console.print(f"   {escape(before.symptom.what)} [red]{before.symptom}[/] ({escape(before.symptom.source)})")
    console.print(f"\n[bold]2. In the trace.[/] {escape(wanted.search)}")
    console.print(f"   {settings.console_url}/traces/{before.trace_id}\n")
    console.print(waterfall(build(Oap(settings.oap_url).trace(before.trace_id))))
    console.print(f"\n[bold]3. One switch.[/] {wanted.before} → [green]{wanted.after}[/]. {escape(wanted.switch)}")
    console.print("\n[bold]4. The same picture again[/]")
    width, seconds = (console.width - GAP) // 2, max(before.seconds, after.seconds)
    sides = Table(box=None, padding=(0, GAP, 1, 0), expand=False)
    for when, side in (("before", before), ("after", after)):
        sides.add_column(f"{when}: {side.setting}", width=width - GAP)
    sides.add_row(_numbers(before), _numbers(after))
    sides.add_row(*(lanes_as_text(side, seconds, width - GAP) for side in (before, after)))
    console.print(sides)
    console.print(legend((before, after)))
    console.print(f"\npicture: {folder / 'before-after.png'}")
    console.print(f"page: {settings.console_url}/incidents/{wanted.name}")


def _numbers(side: Side) -> RenderableType:
    lines = [f"{side.symptom.what}: {side.symptom}", *(f"{what}: {value}" for what, value in side.facts.items())]
    return Text("\n".join(lines))
