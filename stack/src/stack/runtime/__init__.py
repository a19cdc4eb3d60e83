"""Running the stack: as processes under supervisord, or as containers under Compose."""

from stack.runtime.choice import choose_runtime, current_runtime
from stack.runtime.compose import ComposeRuntime
from stack.runtime.engine import EngineError
from stack.runtime.native import NativeRuntime, PartError, problem_of
from stack.runtime.protocol import Runtime
from stack.runtime.scaling import tell_scaled

__all__ = [
    "ComposeRuntime",
    "EngineError",
    "NativeRuntime",
    "PartError",
    "Runtime",
    "choose_runtime",
    "current_runtime",
    "problem_of",
    "tell_scaled",
]
