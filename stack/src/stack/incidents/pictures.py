"""The picture of a played incident: before and after, side by side, on one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracing_claims.incidents import TONES

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from tracing_claims.incidents import Incident

    from stack.incidents.record import Side

COLOURS: Final = {
    "answer": "#2b66e6",
    "wait": "#c9d1dc",
    "task": "#0d9f8c",
    "failed": "#dd8500",
    "refused": "#d22f3a",
    "lost": "#8b95a3",
    "crashed": "#d22f3a",
}
FEW_LANES: Final = 12
"""So many have their names beside them."""
SHORTEST_SHARE: Final = 0.004
"""Of the axis: what is shorter could not be seen."""


def draw(incident: Incident, before: Side, after: Side, path: Path) -> None:
    """Draw both sides as a PNG."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use while it is played

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    lanes = max(len(before.lanes), len(after.lanes))
    height = 2.6 + min(lanes, 50) * (0.32 if lanes <= FEW_LANES else 0.075)
    figure, axes = plt.subplots(1, 2, figsize=(12, height), sharex=True, sharey=True, layout="constrained")
    seconds = max(before.seconds, after.seconds)
    for one, side, when in ((axes[0], before, "before"), (axes[1], after, "after")):
        _draw_side(one, side, seconds)
        one.set_title(f"{when}: {side.setting}\n{side.symptom.what} {side.symptom}", fontsize=11, loc="left")
    used = {piece.tone for side in (before, after) for lane in side.lanes for piece in lane.pieces}
    marks = [
        Patch(facecolor=COLOURS[tone], label=text, hatch=_hatch(tone)) for tone, text in TONES.items() if tone in used
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    figure.suptitle(incident.title, fontsize=14, x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_side(axes: Axes, side: Side, seconds: float) -> None:
    for number, lane in enumerate(side.lanes):
        for piece in lane.pieces:
            length = max(piece.end - piece.start, seconds * SHORTEST_SHARE)
            axes.barh(
                number, length, left=piece.start, height=0.72, color=COLOURS[piece.tone], hatch=_hatch(piece.tone),
                edgecolor="white", linewidth=0,
            )  # fmt: skip
    axes.set_xlim(0, seconds * 1.02)
    axes.set_xlabel("s since the first request")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if len(side.lanes) <= FEW_LANES:
        axes.set_yticks(range(len(side.lanes)), [lane.label for lane in side.lanes])
    else:
        first, last = side.lanes[0].label, side.lanes[-1].label
        axes.set_yticks([0, len(side.lanes) - 1], [first, last])
    axes.set_ylim(len(side.lanes) - 0.4, -0.6)


def _hatch(tone: str) -> str | None:
    """A killed task is not told by its colour alone."""
    return "////" if tone in {"lost", "crashed"} else None
