"""Errors that are both: ours, with their numbers, and the one that LangChain's own code catches and retries on.

`SummarizationMiddleware` waits for a `ContextOverflowError`. Retry rules wait for the retryable errors. Callers expect
a `ValueError` where their input is wrong. What you get is an instance of both classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from langchain_core import exceptions

from eccos_core.errors import EccosError, FailureKind, RequestError
from eccos_integrations._shared.errors import combine_error, find_failure_kind, raise_translated

_CLASS_NAMES: dict[str, str] = {
    FailureKind.AUTHENTICATION: "ModelAuthenticationError",
    FailureKind.BAD_REQUEST: "ModelInvalidRequestError",
    FailureKind.CONNECTION: "ModelConnectionError",
    FailureKind.CONTEXT_WINDOW: "ContextOverflowError",
    FailureKind.NOT_FOUND: "ModelNotFoundError",
    FailureKind.RATE_LIMIT: "ModelRateLimitError",
    FailureKind.TIMEOUT: "ModelTimeoutError",
    FailureKind.UNAVAILABLE: "ModelAPIError",
}


def langchain_error(error: EccosError) -> EccosError:
    """Return the same error, as an instance of the LangChain error that says the same. Itself where there is none."""
    return combine_error(error, _find_expected(error))


def raise_langchain_errors() -> AbstractContextManager[None]:
    """Raise errors of eccos as `langchain_error` gives them. All other errors pass unchanged."""
    return raise_translated(langchain_error)


def _find_expected(error: EccosError) -> type[Exception] | None:
    kind = find_failure_kind(error)
    if kind is not None:
        # an older langchain-core lacks some of these classes: then the error stays ours alone
        found: type[Exception] | None = getattr(exceptions, _CLASS_NAMES.get(kind, ""), None)
        return found
    return ValueError if isinstance(error, RequestError) else None
