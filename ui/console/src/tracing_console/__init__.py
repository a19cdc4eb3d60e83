"""The console: web pages that show background tasks, read from SkyWalking and from the demo service.

It stores nothing and runs as `python -m tracing_console`. Inside, `pages` imports `data`, and never the other way.
"""

from tracing_console.settings import Settings

__all__ = ["Settings"]
