"""Checking a running stack, or a service of somebody else, against the contract."""

from stack.verify.command import verify
from stack.verify.own_service import Wanted, verify_service

__all__ = ["Wanted", "verify", "verify_service"]
