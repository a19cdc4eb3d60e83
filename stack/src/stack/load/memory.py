"""Memory while tasks fail for a while: what a failure leaves behind shows as a line that rises."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from stack import _locust
from stack._locust import Load
from stack._meter import Meter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack._meter import Sample
    from stack._settings import Settings

RATE: Final = 60.0
"""Requests/s of a report's soak; four of twelve leave a task behind that fails."""
MOST: Final = 30.0
"""MB that the service may grow by."""
WARM: Final = 0.25
"""The share of a soak in which caches fill and the number of running tasks grows, which is no leak."""


@dataclass(frozen=True)
class Soak:
    """What a soak of failures has shown."""

    seconds: float
    requests: int
    failed: int
    samples: Mapping[str, Sequence[Sample]] = field(repr=False)

    @property
    def growth(self) -> float:
        """What the service grew by in MB, from its first quarter on; not a number where it was not measured."""
        return growth(self.samples.get("service", ()))

    @property
    def holds(self) -> bool:
        """Whether every request was answered, and the line is flat."""
        return bool(self.requests) and not self.failed and self.growth < MOST


def soak(settings: Settings, seconds: float) -> Soak:
    """Let tasks fail for so long, and look at the memory meanwhile.

    Raises:
        RuntimeError: Locust did not run.
    """
    load = Load("failures", users=20, rate=RATE, duration=seconds, results="report-failures")
    with Meter(settings) as meter:
        code = _locust.start(settings, load, quiet=True).wait()
    requests = _locust.requests(settings, load)
    if not requests:
        log = load.folder(settings) / "locust.log"
        raise RuntimeError(f"Locust sent no request (exit code {code}): {log} says why")
    return Soak(seconds, len(requests), sum(bool(request.error) for request in requests), meter.samples)


def growth(samples: Sequence[Sample]) -> float:
    """Return by how many MB the memory grew between the second and the last quarter; not a number without enough."""
    quarter = int(len(samples) * WARM)
    if quarter < 2:  # noqa: PLR2004  # a median of one is none
        return math.nan
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    return median(one.memory for one in late) - median(one.memory for one in early)


def draw(samples: Mapping[str, Sequence[Sample]], title: str) -> str:
    """Draw the memory of each part as an SVG."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and of no use while measuring

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(12, 3.2), layout="constrained")
    for part, seen in samples.items():
        if seen:
            axes.plot([one.time - seen[0].time for one in seen], [one.memory for one in seen], label=part)
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
