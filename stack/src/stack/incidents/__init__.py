"""The guided incidents: `make incident` lists them, `make incident NAME=…` plays one."""

from stack.incidents.command import incident
from stack.incidents.player import folder_of, play

__all__ = ["folder_of", "incident", "play"]
