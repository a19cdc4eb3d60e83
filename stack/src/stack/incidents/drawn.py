"""The lanes of an incident as text, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text
from tracing_claims.incidents import TONES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stack.incidents.record import Lane, Side, Tone

LOOKS: Final[dict[Tone, tuple[str, str]]] = {
    "answer": ("▌", "blue"),
    "wait": ("·", "dim"),
    "task": ("━", "cyan"),
    "failed": ("▒", "yellow"),
    "refused": ("x", "red"),
    "lost": ("?", "dim"),
    "crashed": ("#", "red"),
}
"""Of each tone its sign and its colour: without colours the sign tells."""
MOST_LANES: Final = 16
LABEL_CHARACTERS: Final = 25


def lanes_as_text(side: Side, seconds: float, width: int) -> Text:
    """Draw the lanes of a side on an axis of so many seconds: all of them, or some that stand for all."""
    lanes, drawn = side.lanes, Text()
    step = -(-len(lanes) // MOST_LANES) or 1
    for lane in lanes[::step]:
        drawn.append(f"{lane.label[:LABEL_CHARACTERS]:{LABEL_CHARACTERS}} ")
        drawn.append_text(_bar(lane, seconds, width - LABEL_CHARACTERS - 1))
        drawn.append("\n")
    if step > 1:
        drawn.append(f"(1 of {step} is drawn, of {len(lanes)})\n", "dim")
    drawn.append(f"{'':{LABEL_CHARACTERS}} 0{f'{seconds:.1f} s':>{width - LABEL_CHARACTERS - 2}}", "dim")
    return drawn


def legend(sides: Iterable[Side]) -> Text:
    """Say what the signs mean that these sides have."""
    used = {piece.tone for side in sides for lane in side.lanes for piece in lane.pieces}
    words = Text()
    for tone, (sign, colour) in LOOKS.items():
        if tone in used:
            words.append(f"{sign} ", colour).append(f"{TONES[tone]}   ")
    return words


def _bar(lane: Lane, seconds: float, width: int) -> Text:
    cells: list[Tone | None] = [None] * width
    for piece in sorted(lane.pieces, key=lambda piece: piece.tone != "wait"):  # a wait hides nothing that is short
        first = min(width - 1, int(piece.start / seconds * width))
        last = max(first + 1, min(width, round(piece.end / seconds * width)))
        cells[first:last] = [piece.tone] * (last - first)
    bar = Text()
    for tone in cells:
        bar.append(*(LOOKS[tone] if tone else (" ", "")))
    return bar
