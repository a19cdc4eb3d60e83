"""Accepted work that survives its process: what was accepted and not finished is found at the next start."""

from demo_service.accepted.journal import Accepted, Journal, Level
from demo_service.accepted.rescue import Left, claim_all

__all__ = ["Accepted", "Journal", "Left", "Level", "claim_all"]
