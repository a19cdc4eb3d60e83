"""The fixtures that these tests share with those of `tests/`."""

from standins import settings, use_parts

__all__ = ["settings", "use_parts"]
