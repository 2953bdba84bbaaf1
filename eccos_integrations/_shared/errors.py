"""Errors that are two things at once: the error of eccos, and the one that a framework's own code catches.

Retry rules and middleware of a framework look for the framework's classes. You may look for those of eccos. An error
that passes through here is an instance of both, with the same message and numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    EccosError,
    ExclusionKind,
    FailureKind,
    NoEligibleModelError,
    RequestError,
)


class InvalidRequestError(RequestError, ValueError):
    """A request that no model could be asked: it is empty, or its content cannot be translated."""


def find_failure_kind(error: EccosError) -> FailureKind | str | None:
    """Return the one kind of failure that an error stands for. None where there is none, or several.

    A request that fits no context window of the pool is a failure of the kind `CONTEXT_WINDOW`. The kind of each
    exclusion says so, never the text of its message.
    """
    match error:
        case BackendError():
            return error.kind
        case AttemptsExhausted():
            kinds = {attempt.kind for attempt in error.attempts}
            return kinds.pop() if len(kinds) == 1 else None
        case NoEligibleModelError() if any(
            exclusion.kind is ExclusionKind.CONTEXT_WINDOW for exclusion in error.exclusions.values()
        ):
            return FailureKind.CONTEXT_WINDOW
    return None


def combine_error(error: EccosError, expected: type[Exception] | None) -> EccosError:
    """Return the same error as an instance of `expected` too. Return the error itself where nothing is expected."""
    if expected is None or isinstance(error, expected):
        return error
    ours: Any = type(error)
    theirs: Any = expected
    combined_class = _combine_classes(ours, theirs)
    combined: EccosError = combined_class.__new__(combined_class)
    combined.args = error.args
    combined.__dict__.update(error.__dict__)
    return combined


@contextmanager
def raise_translated(translate: Callable[[EccosError], EccosError]) -> Iterator[None]:
    """Raise what `translate` makes of an error of eccos. All other errors pass unchanged."""
    try:
        yield
    except EccosError as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error


@functools.cache
def _combine_classes(ours: Any, theirs: Any) -> Any:  # Any: mypy does not see that a class is hashable
    """Return a class that inherits from both and has the name of ours. One class per pair, so you can catch it."""
    return type(ours.__name__, (ours, theirs), {"__doc__": ours.__doc__, "__module__": __name__})
