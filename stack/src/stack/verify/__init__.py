"""Checking a running stack against its contract."""

from stack.verify.command import verify

__all__ = ["verify"]
