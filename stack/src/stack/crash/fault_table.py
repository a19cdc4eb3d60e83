"""The faults of `make crash`: one table for the command, the console's page and the docs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from demo_service.variants import Variant

Fault = Literal["kill", "term", "broker"]
FAULTS: Final[tuple[Fault, ...]] = ("kill", "term", "broker")
TITLES: Final = {
    "kill": "kill -9 of the process that does the work",
    "term": "SIGTERM, and a new process",
    "broker": "restart of the broker",
}


def applies(variant: Variant, fault: Fault) -> bool:
    """Say whether a variant can have a fault."""
    return variant.broker or fault != "broker"
