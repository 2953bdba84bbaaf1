"""Errors that are both: ours, with their numbers, and the one that LangChain's own code catches and retries on.

`SummarizationMiddleware` waits for a `ContextOverflowError`. Retry rules wait for the retryable errors. Callers expect
a `ValueError` where their input is wrong. Every failed call of a model is a `ModelError`. What you get is an instance
of both classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from langchain_core import exceptions

from eccos_core.errors import AttemptsExhausted, BackendError, EccosError, FailureKind, RequestError
from eccos_integrations._shared.errors import combine_error, find_failure_kind, raise_translated

_CLASSES: dict[str | None, type[Exception]] = {
    FailureKind.AUTHENTICATION: exceptions.ModelAuthenticationError,
    FailureKind.BAD_REQUEST: exceptions.ModelInvalidRequestError,
    FailureKind.CONNECTION: exceptions.ModelConnectionError,
    FailureKind.CONTEXT_WINDOW: exceptions.ContextOverflowError,
    FailureKind.MALFORMED_RESPONSE: exceptions.ModelAPIError,
    FailureKind.NOT_FOUND: exceptions.ModelNotFoundError,
    FailureKind.RATE_LIMIT: exceptions.ModelRateLimitError,
    FailureKind.TIMEOUT: exceptions.ModelTimeoutError,
    FailureKind.UNAVAILABLE: exceptions.ModelAPIError,
}


def langchain_error(error: EccosError) -> EccosError:
    """Return the same error, as an instance of the LangChain error that says the same. Itself where there is none."""
    return combine_error(error, _find_expected(error))


def raise_langchain_errors() -> AbstractContextManager[None]:
    """Raise errors of eccos as `langchain_error` gives them. All other errors pass unchanged."""
    return raise_translated(langchain_error)


def _find_expected(error: EccosError) -> type[Exception] | None:
    kind = find_failure_kind(error)
    if kind in _CLASSES:
        return _CLASSES[kind]
    match error:
        case BackendError():
            return exceptions.ModelAPIError if error.retryable else exceptions.ModelError
        case AttemptsExhausted():
            curable = all(FailureKind(attempt.kind).retryable for attempt in error.attempts)
            return exceptions.ModelAPIError if curable else exceptions.ModelError
        case RequestError():
            return ValueError
    return None
