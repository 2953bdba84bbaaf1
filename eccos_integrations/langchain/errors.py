"""Errors that are both: ours, with their numbers, and the one that LangChain's own code catches and retries on.

`SummarizationMiddleware` waits for a `ContextOverflowError`, retry rules for the retryable ones, callers for a
`ValueError` where their input is wrong. Each class here inherits from the error of eccos and from LangChain's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core import exceptions

from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    EccosError,
    ExclusionKind,
    NoEligibleModelError,
    RequestError,
)

_BY_KIND = {
    "authentication": "ModelAuthenticationError",
    "bad_request": "ModelInvalidRequestError",
    "connection": "ModelConnectionError",
    "context_window": "ContextOverflowError",
    "not_found": "ModelNotFoundError",
    "rate_limit": "ModelRateLimitError",
    "timeout": "ModelTimeoutError",
    "unavailable": "ModelAPIError",
}


class InvalidRequestError(RequestError, ValueError):
    """A request that no model could be asked: empty, only system messages, or malformed."""


@contextmanager
def as_langchain_expects() -> Iterator[None]:
    """Raises the errors of eccos as `langchain_error` gives them; all others pass as they are."""
    try:
        yield
    except EccosError as error:
        known = langchain_error(error)
        if known is error:
            raise
        raise known from error


def langchain_error(error: EccosError) -> EccosError:
    """The same error, also an instance of the LangChain error that says the same; itself where there is none."""
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
            return _of_kind(error.kind)
        case AttemptsExhausted():  # several models were tried; what all of them said
            kinds = {attempt.kind for attempt in error.attempts}
            return _of_kind(kinds.pop()) if len(kinds) == 1 else None
        case NoEligibleModelError() if any(
            exclusion.kind is ExclusionKind.CONTEXT_WINDOW for exclusion in error.exclusions.values()
        ):
            return _of_kind("context_window")
        case RequestError():
            return ValueError
    return None


def _of_kind(kind: str) -> type[Exception] | None:
    """LangChain's error for this kind of failure; None where the installed langchain-core has none."""
    found: type[Exception] | None = getattr(exceptions, _BY_KIND.get(kind, ""), None)
    return found


@functools.cache
def _both(ours: Any, theirs: Any) -> Any:
    """A class that is both, named after ours. One class per pair, so that it can be caught again."""
    return type(ours.__name__, (ours, theirs), {"__doc__": ours.__doc__, "__module__": __name__})
