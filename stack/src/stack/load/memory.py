"""How the memory of the parts develops during a load: by how much it grows, and a picture of it."""

from __future__ import annotations

import io
import math
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack.load.meter import Sample

WARM_UP_SHARE: Final = 0.25
"""At the beginning of a load caches fill and the number of running tasks grows, which is no leak."""


def growth_mb(samples: Sequence[Sample]) -> float:
    """Return by how many MB the memory grew between the second and the last quarter; NaN without enough samples."""
    quarter = int(len(samples) * WARM_UP_SHARE)
    if quarter < 2:  # noqa: PLR2004  # one sample has no useful median
        return math.nan
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    return median(one.memory_mb for one in late) - median(one.memory_mb for one in early)


def draw_memory(samples: Mapping[str, Sequence[Sample]], title: str) -> str:
    """Draw the memory of each part as an SVG."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use while measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(12, 3.2), layout="constrained")
    for part, seen in samples.items():
        if seen:
            axes.plot([one.time - seen[0].time for one in seen], [one.memory_mb for one in seen], label=part)
    axes.set_title(title)
    axes.set_xlabel("s")
    axes.set_ylabel("MB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()
