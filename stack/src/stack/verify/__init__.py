"""Checking a running stack, or a service of somebody else, against the contract."""

from stack.verify.command import verify
from stack.verify.own_service import Wanted, verify_service
from stack.verify.rules import Answer, check_trace

__all__ = ["Answer", "Wanted", "check_trace", "verify", "verify_service"]
