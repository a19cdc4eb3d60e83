"""The pictures of the comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracing_claims.variants import FAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stack.compare.faults import Outcome
    from stack.compare.measure import Found


def draw_compared(found: Mapping[str, Found], titles: Mapping[str, str], title: str, path: Path) -> None:
    """Draw answers, delays, throughput and memory, a bar for each variant."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use while measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = [titles[name] for name in found]
    panels = (
        ("Answer, p99 (ms)", [max(one.pace.p99_ms, 0.1) for one in found.values()], True),
        ("Queue delay, p99 (ms)", [max(one.pace.delay_p99_ms, 0.1) for one in found.values()], True),
        ("Tasks of 1 s that end in a second", [one.throughput_1s for one in found.values()], False),
        ("Tasks of 0 s that end in a second", [one.pace.throughput_0s for one in found.values()], False),
        ("Memory before anything runs (MB)", [one.cost.memory_mb for one in found.values()], False),
        ("Memory of a waiting task (KB)", [one.cost.waiting_kb for one in found.values()], False),
    )
    figure, axes = plt.subplots(2, 3, figsize=(14, 7), layout="constrained", sharey=True)
    for axis, (label, values, logarithmic) in zip(axes.flat, panels, strict=True):
        bars = axis.barh(names, values, color="tab:blue")
        axis.bar_label(bars, fmt="{:,.0f}", padding=3)
        axis.set_title(label)
        axis.margins(x=0.2)
        axis.grid(axis="x", alpha=0.3)
        if logarithmic:
            axis.set_xscale("log")
            axis.minorticks_off()
    axes.flat[0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_crashed(outcomes: Sequence[Outcome], titles: Mapping[str, str], title: str, path: Path) -> None:
    """Draw what became of the requests, a panel for each fault."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    kinds = [fault for fault in FAULTS if any(one.fault == fault for one in outcomes)]
    figure, panels = plt.subplots(1, len(kinds), figsize=(5 * len(kinds), 4), layout="constrained", squeeze=False)
    for axis, fault in zip(panels.flat, kinds, strict=True):
        rows = [one for one in outcomes if one.fault == fault]
        names, left = [titles[one.variant] for one in rows], [0] * len(rows)
        for label, colour, values in (
            ("done", "tab:green", [one.done for one in rows]),
            ("dead letter", "tab:orange", [one.dead for one in rows]),
            ("lost", "tab:red", [one.lost for one in rows]),
            ("refused", "lightgrey", [one.refused for one in rows]),
        ):
            axis.barh(names, values, left=left, color=colour, label=label)
            left = [before + value for before, value in zip(left, values, strict=True)]
        axis.set_title(FAULTS[fault])
        axis.invert_yaxis()
        axis.set_xlabel("requests")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)
