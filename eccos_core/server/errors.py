"""Errors as the called API tells them: the right status, a message for people, and nothing secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from eccos_core.errors import (
    AttemptsExhausted,
    BackendError,
    DatabaseAwayError,
    EccosError,
    FailureKind,
    InputError,
    NoEligibleModelError,
    Overloaded,
    RoutingError,
    UnknownDecisionError,
    UnknownModelError,
)
from eccos_core.io.safe_text import printable

ApiName: TypeAlias = Literal["openai", "anthropic"]
Kind: TypeAlias = Literal[
    "invalid_request", "authentication", "permission", "not_found", "too_large", "rate_limit", "budget", "overloaded",
    "timeout", "slow_client", "headers_too_large", "upstream", "internal",
]  # fmt: skip

_STATUS: Mapping[Kind, int] = {
    "invalid_request": 400, "authentication": 401, "budget": 402, "permission": 403, "not_found": 404,
    "slow_client": 408, "timeout": 504, "headers_too_large": 431,
    "too_large": 413, "rate_limit": 429, "internal": 500, "upstream": 502, "overloaded": 503,
}  # fmt: skip
_OPENAI_TYPE: Mapping[Kind, str] = {
    "invalid_request": "invalid_request_error", "authentication": "authentication_error",
    "budget": "insufficient_quota", "permission": "permission_error", "not_found": "not_found_error",
    "timeout": "timeout_error", "slow_client": "timeout_error", "too_large": "invalid_request_error",
    "headers_too_large": "invalid_request_error", "rate_limit": "rate_limit_error",
    "internal": "server_error", "upstream": "server_error", "overloaded": "overloaded_error",
}  # fmt: skip
_ANTHROPIC_TYPE: Mapping[Kind, str] = {
    "invalid_request": "invalid_request_error", "authentication": "authentication_error", "budget": "billing_error",
    "permission": "permission_error", "not_found": "not_found_error", "timeout": "timeout_error",
    "slow_client": "timeout_error", "headers_too_large": "request_too_large", "too_large": "request_too_large",
    "rate_limit": "rate_limit_error", "internal": "api_error", "upstream": "api_error",
    "overloaded": "overloaded_error",
}  # fmt: skip


@dataclass
class ApiError(Exception):
    """An error that a caller gets. `param` is the field at fault. `headers` go with the answer."""

    kind: Kind
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _STATUS[self.kind]

    def body(self, api: ApiName) -> dict[str, Any]:
        """Return the error object of an API."""
        if api == "anthropic":
            return {"type": "error", "error": {"type": _ANTHROPIC_TYPE[self.kind], "message": self.message}}
        return {
            "error": {
                "message": self.message,
                "type": _OPENAI_TYPE[self.kind],
                "param": self.param,
                "code": self.code or self.kind,
            }
        }


_FAILURES: Mapping[FailureKind, Kind] = {
    FailureKind.BAD_REQUEST: "invalid_request",
    FailureKind.CONTEXT_WINDOW: "invalid_request",
    FailureKind.CONTENT_POLICY: "invalid_request",
    FailureKind.UNSUPPORTED: "invalid_request",
    FailureKind.TIMEOUT: "timeout",
    FailureKind.RATE_LIMIT: "rate_limit",
    FailureKind.OVERLOADED: "overloaded",
}


def as_api_error(error: BaseException) -> ApiError:
    """Translate an error of eccos. Whatever eccos did not raise on purpose says nothing about the inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Overloaded):
        wait_s = max(1, round(getattr(error, "retry_after_s", None) or 1.0))
        return ApiError("overloaded", printable(str(error)), headers={"retry-after": str(wait_s)})
    if isinstance(error, DatabaseAwayError):
        return ApiError("overloaded", "a database of the server is away. Try again.", headers={"retry-after": "1"})
    if isinstance(error, UnknownModelError | UnknownDecisionError):
        return ApiError("not_found", printable(str(error)), code="model_not_found")
    if isinstance(error, NoEligibleModelError | RoutingError | InputError):
        return ApiError("invalid_request", printable(str(error)))
    if isinstance(error, AttemptsExhausted):
        kinds = {_FAILURES.get(FailureKind(attempt.kind), "upstream") for attempt in error.attempts}
        return ApiError(kinds.pop() if len(kinds) == 1 else "upstream", printable(str(error)))
    if isinstance(error, BackendError):
        wait_s = error.retry_after_s
        later = {} if wait_s is None else {"retry-after": str(max(1, round(wait_s)))}
        return ApiError(_FAILURES.get(error.kind, "upstream"), printable(str(error)), headers=later)
    if isinstance(error, EccosError):
        return ApiError("internal", printable(str(error)))
    return ApiError("internal", "eccos failed. The reason is in the server's log.")
