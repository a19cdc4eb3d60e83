"""The ways to run work beside a request, side by side: `make compare` and `make crash`."""

from stack.compare.command import compare, crash

__all__ = ["compare", "crash"]
