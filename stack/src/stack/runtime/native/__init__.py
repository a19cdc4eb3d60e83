"""The parts as processes under supervisord."""

from stack.runtime.native.health import problem_of
from stack.runtime.native.parts import Part
from stack.runtime.native.runtime import NativeRuntime
from stack.runtime.native.start import PartError

__all__ = ["NativeRuntime", "Part", "PartError", "problem_of"]
