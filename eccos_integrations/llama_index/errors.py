"""Errors that are both: ours, with their numbers, and the built-in one that LlamaIndex's own code raises and catches.

LlamaIndex has no tree of errors of its own. It raises a `ValueError` for what cannot be asked, and so do we. A timeout
is a `TimeoutError`, and a broken connection a `ConnectionError`. What you get is an instance of both classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from eccos_core.errors import EccosError, FailureKind, InfeasibleError, InputError, NoEligibleModelError
from eccos_integrations._shared.errors import combine_error, find_failure_kind, raise_translated

_CLASSES: dict[str, type[Exception]] = {
    FailureKind.BAD_REQUEST: ValueError,
    FailureKind.CONNECTION: ConnectionError,
    FailureKind.CONTEXT_WINDOW: ValueError,
    FailureKind.TIMEOUT: TimeoutError,
}


def llama_index_error(error: EccosError) -> EccosError:
    """Return the same error, as an instance of the built-in one that says the same. Itself where there is none."""
    return combine_error(error, _find_expected(error))


def raise_llama_index_errors() -> AbstractContextManager[None]:
    """Raise errors of eccos as `llama_index_error` gives them. All other errors pass unchanged."""
    return raise_translated(llama_index_error)


def _find_expected(error: EccosError) -> type[Exception] | None:
    if isinstance(error, InputError | NoEligibleModelError | InfeasibleError):
        return ValueError
    kind = find_failure_kind(error)
    return None if kind is None else _CLASSES.get(kind)
