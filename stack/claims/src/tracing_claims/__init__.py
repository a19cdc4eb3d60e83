"""The numbers that the product claims; `docs/claims.md` explains each of them.

`make report`, `make verify`, the console and the Locust scenarios all measure against these. They are a distribution of
their own without any dependency, as Locust's container has nothing else of ours, and the console's has no `stack`.
"""

from __future__ import annotations

from typing import Final

RESPONSE_LIMIT_MS: Final = 100
"""A request that leaves a background task behind is answered faster than this."""
TASK_MS: Final = 10_000
"""How long a background task of the demo runs."""
SAVED_MS: Final = TASK_MS - RESPONSE_LIMIT_MS
"""So much time a user saves who does not wait for the task."""
CONCURRENT_TASKS: Final = 1000
"""At least so many tasks run at the same time."""
MEMORY_PER_TASK_LIMIT_KB: Final = 1024
"""A running task takes less memory than this."""
SLEEPING_CPU_LIMIT_PERCENT: Final = 10
"""CPU usage while tasks sleep is minimal: less than this share of one core, however many sleep."""

AIM_P99_MS: Final = {1000: 25, 10_000: 100}
"""Our own aims: the 99th percentile of the response times stays below this with so many tasks running."""
AIM_MEMORY_GROWTH_MB: Final = 30
"""Our own aim: the service grows by less than this while tasks fail for minutes."""
