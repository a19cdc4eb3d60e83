"""Query parameters: those that an endpoint does not know are an error, as a typing error would else go unnoticed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """The query of an endpoint; its own has the fields that it knows."""

    model_config = ConfigDict(extra="forbid")


def _none(_query: Annotated[Parameters, Query()]) -> None:
    """Take none at all."""


NO_PARAMETERS = Depends(_none)
