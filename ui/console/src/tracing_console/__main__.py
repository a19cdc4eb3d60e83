"""Run the console: `python -m tracing_console`."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Final

_UNUSED: Final = ("aio_pika", "aiohttp", "kombu", "redis", "requests", "rich")
"""What is imported where it is installed, and not used here: Socket.IO's clients and queues, and httpx's command line.
A third of the console's start, and 24 MB."""


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    gc.disable()  # what is imported stays: looking at it time and again takes a quarter of the start
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]  # None: as if it were not installed
    from nicegui import ui  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    from tracing_console.app import create  # noqa: PLC0415
    from tracing_console.settings import Settings  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every query
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(["CONSOLE", *map(str, problem["loc"])]).upper()
            print(f"console: {name}={problem['input']!r} is not valid: {problem['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    create(settings)
    gc.freeze()
    gc.enable()
    ui.run(
        host=settings.host,
        port=settings.port,
        title="Background work, traced",
        favicon=_FAVICON,
        dark=None,  # as the system has it
        language="en-US",
        show=False,
        reload=False,
        tailwind=False,
        show_welcome_message=False,
        server_header=False,
    )
    return 0


_FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#2f6feb"/>'
    '<g stroke="#fff" stroke-width="3.4" stroke-linecap="round"><path d="M7 9.500h6"/><path d="M10 16h14"/>'
    '<path d="M15 22.500h10"/></g></svg>'
)

if __name__ == "__main__":
    sys.exit(main())
