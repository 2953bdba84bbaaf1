"""Errors that are both: ours, with their numbers, and the built-in one that LlamaIndex's own code raises and catches.

LlamaIndex has no tree of errors of its own: what cannot be asked is a `ValueError` there. So is it here, and a timeout
is a `TimeoutError`, a broken connection a `ConnectionError`. Each class inherits from the error of eccos and from that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    EccosError,
    InfeasibleError,
    InputError,
    NoEligibleModelError,
    RequestError,
)

_BY_KIND: dict[str, type[Exception]] = {
    "bad_request": ValueError,
    "connection": ConnectionError,
    "context_window": ValueError,
    "timeout": TimeoutError,
}


class InvalidRequestError(RequestError, ValueError):
    """A request that no model could be asked: empty, or with content that cannot be translated."""


@contextmanager
def as_llama_index_expects() -> Iterator[None]:
    """Raises the errors of eccos as `llama_index_error` gives them; all others pass as they are."""
    try:
        yield
    except EccosError as error:
        known = llama_index_error(error)
        if known is error:
            raise
        raise known from error


def llama_index_error(error: EccosError) -> EccosError:
    """The same error, also an instance of the built-in one that says the same; itself where there is none."""
    expected = _expected(error)
    if expected is None or isinstance(error, expected):
        return error
    ours: Any = type(error)
    theirs: Any = expected
    both = _both(ours, theirs)
    known: EccosError = both.__new__(both)
    known.args = error.args
    known.__dict__.update(error.__dict__)
    return known


def _expected(error: EccosError) -> type[Exception] | None:
    match error:
        case BackendError():
            return _BY_KIND.get(error.kind)
        case AttemptsExhausted():  # several models were tried; what all of them said
            kinds = {attempt.kind for attempt in error.attempts}
            return _BY_KIND.get(kinds.pop()) if len(kinds) == 1 else None
        case InputError() | NoEligibleModelError() | InfeasibleError():
            return ValueError
    return None


@functools.cache
def _both(ours: Any, theirs: Any) -> Any:
    """A class that is both, named after ours. One class per pair, so that it can be caught again."""
    return type(ours.__name__, (ours, theirs), {"__doc__": ours.__doc__, "__module__": __name__})
