"""The guided incidents: `make incident` lists them, `make incident NAME=…` plays one."""

from stack.incidents.command import incident

__all__ = ["incident"]
