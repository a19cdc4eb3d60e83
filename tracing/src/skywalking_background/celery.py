"""For Celery: `instrument(app)` in the module of the user's app, before or after its tasks are declared.

```python
app = instrument(Celery("shop", broker="amqp://…"))
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from skywalking_background import _agent

if TYPE_CHECKING:
    from celery import Celery

App = TypeVar("App", bound="Celery")

__all__ = ["instrument"]


def instrument(app: App, *, enabled: bool | None = None) -> App:
    """Trace what is sent to Celery's tasks and what they do, and start the agent if nobody has. Twice is as once.

    It is about the process: every Celery app in it is traced, by Celery's own signals; the tasks stay as they are.
    Where `start()` or FastAPI's `instrument` runs, that happens by itself as soon as Celery is imported.

    Args:
        app: a Celery app.
        enabled: `False` leaves the process as if this library were not there; by default the variable
            `SKYWALKING_BACKGROUND_ENABLED` says so with `false`, `0`, `no` or `off`.

    Raises:
        RuntimeError: the agent runs with its own Celery plugin, or with a setting that can't be served.
    """
    if not _agent.switch(on=enabled):
        return app
    _agent.start()
    # Not at the top: importing Celery is what the agent's plugins, and ours, are installed by.
    from skywalking_background import _celery  # noqa: PLC0415

    _celery.install()
    return app
