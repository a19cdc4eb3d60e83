"""Where an incident is played: a service of its own beside the stack's, and what OAP knows of it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from oap_query import Metric, read

from stack.load import send
from stack.verify.small_service import kill_with_workers, service_beside

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import httpx
    from oap_query import Oap, Span

    from stack.load import Sent
    from stack.settings import Settings

TRACE_SECONDS: Final = 40.0
"""How long traces may take to arrive after their last span has ended."""
METRIC_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
READERS: Final = 8
"""Traces that are read at the same time."""


class PlayError(Exception):
    """The incident could not be played to its end; the text says why."""


@dataclass
class Stage:
    """A service for one side of an incident."""

    settings: Settings
    oap: Oap
    folder: Path
    service: str
    """Its name in SkyWalking."""
    variables: Mapping[str, str]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    @contextmanager
    def running(self) -> Iterator[httpx.Client]:
        """Run the service until the block ends; what is in its folder stays for the next start.

        Raises:
            httpx.HTTPError: it does not answer.
        """
        suffix = self.service.removeprefix(f"{self.settings.service_name}-")
        variables = {
            "SERVICE_FAULTS_ENABLED": "true",
            "SERVICE_WORKERS": "1",
            "SERVICE_JOURNAL": "off",
            "SERVICE_LEDGER_DIR": "",
            "SERVICE_TRACE_URL": f"{self.settings.console_url}/traces/{{trace_id}}",
            "BROKER_URL": "",
            "SW_AGENT_METER_REPORTER_PERIOD": "1",
            **self.variables,
        }
        with service_beside(self.settings, suffix, self.folder, variables) as (self.process, client):
            self.url = str(client.base_url)
            yield client

    def kill(self) -> None:
        """End it as the kernel does that has no memory left."""
        if self.process is not None:
            kill_with_workers(self.process)

    def send(  # noqa: PLR0913  # each is one thing that an incident wants different
        self, method: str, path: str, count: int, *, rate: float, fault: str = "", seconds: float | None = None
    ) -> list[Sent]:
        """Send requests, so many a second, and return their answers in the order in which they were sent.

        Raises:
            PlayError: one is not answered.
        """
        headers = {"X-Fault": fault} if fault else {}
        sent = asyncio.run(send(f"{self.url}{path}", count, method=method, seconds=seconds, headers=headers, rate=rate))
        if not all(one.status for one in sent):
            raise PlayError(f"the incident’s service does not answer: its log is in {self.folder}")
        return sent

    def traces(
        self, sent: Sequence[Sent], complete: Callable[[list[Span]], bool], seconds: float = TRACE_SECONDS
    ) -> dict[str, list[Span]]:
        """Read the traces of requests until all are complete; by trace id.

        Raises:
            OapError: OAP does not answer.
            PlayError: not all are within so many seconds.
        """
        found: dict[str, list[Span]] = {one.trace_id: [] for one in sent}
        missing = list(found)
        deadline = time.monotonic() + seconds
        with ThreadPoolExecutor(READERS) as pool:
            while True:
                found.update(zip(missing, pool.map(self.oap.trace, missing), strict=True))
                missing = [trace_id for trace_id in missing if not complete(found[trace_id])]
                if not missing:
                    return found
                if time.monotonic() > deadline:
                    message = f"{len(missing)} of {len(found)} traces were not complete in OAP after {seconds:.0f} s"
                    raise PlayError(message)
                time.sleep(LOOK_SECONDS)

    def metric(
        self, expressions: Sequence[str], complete: Callable[[list[list[float]]], bool], endpoint: str | None = None
    ) -> list[list[float]]:
        """Read metrics of this service, a value a minute, when they are complete and two looks have seen the same.

        OAP counts later than it takes traces: `complete` is what tells a mean of all requests from that of the first.

        Raises:
            OapError: OAP does not answer.
            PlayError: they are not complete, or do not come to rest.
        """
        wanted = [Metric(expression, self.service, endpoint) for expression in expressions]
        before: list[list[float]] = []
        deadline = time.monotonic() + METRIC_SECONDS
        while True:
            found = [list(points.values()) for points in read(self.oap, wanted, self.began)]
            if found == before and complete(found):
                return found
            if time.monotonic() > deadline:
                message = f"{', '.join(expressions)} of {self.service} were not complete in OAP"
                raise PlayError(f"{message} after {METRIC_SECONDS:.0f} s")
            before = found
            time.sleep(LOOK_SECONDS * 2)
