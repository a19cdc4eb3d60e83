"""The ways to run work beside a request, side by side: `make compare` and `make crash`."""

from stack.compare.brokers import find_redis
from stack.compare.faults import suffer
from stack.compare.rig import Rig

__all__ = ["Rig", "find_redis", "suffer"]
