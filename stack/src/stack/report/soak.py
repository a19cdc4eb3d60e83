"""Memory while tasks fail for a while: what a failure leaves behind shows as a line that rises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tracing_claims import AIM_MEMORY_GROWTH_MB

from stack.load import Load, Meter, growth_mb, read_requests, start_locust

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack.load import Sample
    from stack.settings import Settings

REQUESTS_PER_SECOND: Final = 60.0
"""Four of twelve requests leave a task behind that fails."""


@dataclass(frozen=True)
class Soak:
    """The result of a soak of failures."""

    seconds: float
    requests: int
    failed: int
    samples: Mapping[str, Sequence[Sample]] = field(repr=False)

    @property
    def growth_mb(self) -> float:
        """By how much the service has grown since the first quarter; NaN where it was not measured."""
        return growth_mb(self.samples.get("service", ()))

    @property
    def holds(self) -> bool:
        """Whether every request was answered, and the memory has hardly grown."""
        return bool(self.requests) and not self.failed and self.growth_mb < AIM_MEMORY_GROWTH_MB


def soak(settings: Settings, seconds: float) -> Soak:
    """Let tasks fail for so long, and measure the memory meanwhile.

    Raises:
        RuntimeError: Locust sent no request.
    """
    load = Load("failures", users=20, rate=REQUESTS_PER_SECOND, duration_seconds=seconds, results="report-failures")
    with Meter(settings) as meter:
        code = start_locust(settings, load, quiet=True).wait()
    requests = read_requests(settings, load)
    if not requests:
        log = load.folder(settings) / "locust.log"
        raise RuntimeError(f"Locust sent no request (exit code {code}): {log} says why")
    return Soak(seconds, len(requests), sum(bool(request.error) for request in requests), meter.samples)
