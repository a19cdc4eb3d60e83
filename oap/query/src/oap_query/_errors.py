"""What can go wrong with OAP, and answers that are not OAP's."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
R = TypeVar("R")


class OapError(Exception):
    """OAP can't be reached or refuses a query; the message says which."""


class OapAwayError(OapError):
    """OAP does not answer, or something else answers in its place; it may be back in a moment."""


def reads_answers(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function, or a generator, raise `OapAwayError` when an answer does not have the shape of OAP's."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: P.args, **options: P.kwargs) -> Iterator[object]:
            with _understood():
                yield from function(*arguments, **options)

        return cast("Callable[P, R]", generate)

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        with _understood():
            return function(*arguments, **options)

    return call


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"the server is no OAP, or an OAP of another version ({type(error).__name__}: {error})"
        raise OapAwayError(message) from error
