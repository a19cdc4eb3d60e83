"""The parts as containers under Compose."""

from stack.runtime.compose.runtime import ComposeRuntime

__all__ = ["ComposeRuntime"]
