"""What can happen to a way to run work, and the small part of the native stack that lets it happen for the console.

How that is played is `stack.compare`, which is not imported here: the part is to stay small.
"""

from stack.crash.fault_table import FAULTS, TITLES, Fault, applies

__all__ = ["FAULTS", "TITLES", "Fault", "applies"]
