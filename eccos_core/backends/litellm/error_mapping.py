"""The one place where LiteLLM's exceptions become ours.

A `BackendError` says whether another try of the same model may help (`retryable`), when (`retry_after_s`), and what
kind of failure it was. Content-policy and context-window errors are never retryable: the same model would say the same.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from eccos_core.backends.litellm.lazy_import import litellm_module
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.errors import BackendError, EccosError, FailureKind
from eccos_core.io.safe_text import printable

LONGEST_MESSAGE = 500
CLASS_PREFIX = re.compile(r"^(?:(?:litellm\.)?\w*(?:Error|Exception|Timeout)\s*(?::|-)\s*|Timeout Error:\s*)")
LONGEST_CHAIN = 20

# from the special to the general: the first that matches decides
RULES = (
    ("ContextWindowExceededError", FailureKind.CONTEXT_WINDOW),
    ("ContentPolicyViolationError", FailureKind.CONTENT_POLICY),
    ("LiteLLMUnknownProvider", FailureKind.NOT_FOUND),
    ("PaymentRequiredError", FailureKind.AUTHENTICATION),
    ("UnsupportedParamsError", FailureKind.UNSUPPORTED),
    ("BadRequestError", FailureKind.BAD_REQUEST),
    ("UnprocessableEntityError", FailureKind.BAD_REQUEST),
    ("NotFoundError", FailureKind.NOT_FOUND),
    ("AuthenticationError", FailureKind.AUTHENTICATION),
    ("PermissionDeniedError", FailureKind.AUTHENTICATION),
    ("RateLimitError", FailureKind.RATE_LIMIT),
    ("Timeout", FailureKind.TIMEOUT),
    ("APIResponseValidationError", FailureKind.MALFORMED_RESPONSE),
    ("ServiceUnavailableError", FailureKind.UNAVAILABLE),
    ("BadGatewayError", FailureKind.UNAVAILABLE),
    ("InternalServerError", FailureKind.UNAVAILABLE),
    ("APIConnectionError", FailureKind.CONNECTION),
    ("APIError", FailureKind.UNAVAILABLE),
)
# statuses that say more than the class that LiteLLM chose. Any other 4xx is the request's own fault
STATUSES = {
    401: FailureKind.AUTHENTICATION,
    402: FailureKind.AUTHENTICATION,
    403: FailureKind.AUTHENTICATION,
    404: FailureKind.NOT_FOUND,
    408: FailureKind.TIMEOUT,
    413: FailureKind.CONTEXT_WINDOW,
    425: FailureKind.UNAVAILABLE,
    429: FailureKind.RATE_LIMIT,
}
# the exception below LiteLLM's, by its class name: what happened on the wire, or in making or reading a body
CAUSES = (
    (FailureKind.BAD_REQUEST, {"UnicodeEncodeError", "LocalProtocolError"}),
    (FailureKind.TIMEOUT, {"ReadTimeout", "WriteTimeout", "PoolTimeout", "SocketTimeoutError", "ServerTimeoutError"}),
    (FailureKind.CONNECTION, {"ConnectError", "ConnectTimeout", "RemoteProtocolError", "ReadError", "WriteError"}),
    (FailureKind.CONNECTION, {"ClientConnectorError", "ServerDisconnectedError", "ClientOSError", "TooManyRedirects"}),
    (FailureKind.CONNECTION, {"UnsupportedProtocol", "InvalidURL"}),  # of the address that the configuration gives
    (FailureKind.MALFORMED_RESPONSE, {"JSONDecodeError", "UnicodeDecodeError", "DecodingError", "ValidationError"}),
)
# what Python raises where a value is not what the code expects: a request's, or an answer's once it was sent
UNEXPECTED_VALUE = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
NO_MONEY = ("insufficient_quota", "exceeded your current quota")
NO_KEY = ("api_key client option must be set", "missing credentials", "api key is required")
NO_ANSWER = ("empty or invalid response from llm endpoint", "'choices' that is not a list", "with no 'choices'")
NO_PROVIDER = ("llm provider not provided",)
NO_JSON = ("not json serializable", "not json compliant", "surrogates not allowed")
NO_ADDRESS = ("invalid ipv6 url", "invalid port", "could not be cast to integer value")
NO_CONNECTION = ("connection error", "connection refused", "cannot connect")
REFUSED = ("content_filter", "content management policy")


class NoAnswerError(Exception):
    """A response of the provider that holds no answer."""


def to_backend_error(
    model: str, error: BaseException, scrubber: SecretRedactor, api_base: str | None = None, *, sent: bool = True
) -> BackendError:
    """Translate one exception of a LiteLLM call. The result's message holds no secret. Its causes may.

    `api_base` is named where the failure may be its fault. `sent` says that the request was handed to the network: what
    fails before is the request's own fault.
    """
    ours = next((one for one in (error.__cause__, error) if isinstance(one, BackendError)), None)
    message = _message(error, scrubber)
    status = getattr(error, "status_code", None)
    if ours is not None:  # a local model's own error, on its way through LiteLLM
        kind, retryable = ours.kind, ours.retryable
    else:
        kind = _failure_kind(error, str(error).lower(), sent)
        retryable = kind.retryable
    if api_base is not None and kind.blames_address:
        message = f"{message.rstrip('.')} (api_base {scrubber.redact(api_base)})"
    return BackendError(
        model,
        message,
        retryable=retryable,
        kind=kind,
        retry_after_s=retry_after_s(_headers(error)) if retryable else None,
        status_code=status if isinstance(status, int) else None,
    )


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, each once. An error of ours ends the chain: before it lies another call."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < LONGEST_CHAIN:
        current = waiting.pop(0)
        if current is not None and not isinstance(current, EccosError) and not any(current is one for one in seen):
            seen.append(current)
            yield current
            waiting += [getattr(current, "original_exception", None), current.__cause__, current.__context__]


def _failure_kind(error: BaseException, text: str, sent: bool) -> FailureKind:
    original = getattr(error, "original_exception", None)
    if isinstance(original, Exception):  # LiteLLM's wrapper around a stream that broke
        return _failure_kind(original, str(original).lower(), sent)
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return FailureKind.TIMEOUT
    if isinstance(error, ConnectionError):
        return FailureKind.CONNECTION
    if isinstance(error, NoAnswerError):
        return FailureKind.MALFORMED_RESPONSE
    litellm = litellm_module()
    kind = next((kind for name, kind in RULES if isinstance(error, getattr(litellm, name))), FailureKind.UNKNOWN)
    match kind:
        case FailureKind.RATE_LIMIT if any(word in text for word in NO_MONEY):
            return FailureKind.AUTHENTICATION  # no money left is not a matter of waiting
        case FailureKind.BAD_REQUEST if any(word in text for word in NO_PROVIDER):
            return FailureKind.NOT_FOUND
        case FailureKind.BAD_REQUEST if any(word in text for word in REFUSED):
            return FailureKind.CONTENT_POLICY
        case FailureKind.UNAVAILABLE | FailureKind.CONNECTION | FailureKind.UNKNOWN | FailureKind.BAD_REQUEST:
            return _kind_of_status(error) or _hidden_kind(error, text, sent) or kind
    return kind


def _kind_of_status(error: BaseException) -> FailureKind | None:
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not 400 <= status < 500:
        return None
    return STATUSES.get(status, FailureKind.BAD_REQUEST)


def _hidden_kind(error: BaseException, text: str, sent: bool) -> FailureKind | None:
    """What LiteLLM's catch-all exceptions (500, connection) really stand for, by their causes."""
    if any(word in text for word in NO_KEY):
        return FailureKind.AUTHENTICATION
    if any(word in text for word in NO_ADDRESS):
        return FailureKind.CONNECTION
    if any(word in text for word in NO_ANSWER):
        return FailureKind.MALFORMED_RESPONSE
    if any(word in text for word in NO_JSON):
        return FailureKind.BAD_REQUEST
    causes = list(chain(error))
    names = {type(cause).__name__ for cause in causes}
    for kind, known in CAUSES:
        if names & known:
            return kind
    if not sent and any(type(cause) is Exception for cause in causes):
        return FailureKind.BAD_REQUEST  # LiteLLM's own checks of a request raise the plainest exception there is
    if any(isinstance(cause, UNEXPECTED_VALUE) for cause in causes):
        return FailureKind.MALFORMED_RESPONSE if sent else FailureKind.BAD_REQUEST
    return FailureKind.CONNECTION if any(word in text for word in NO_CONNECTION) else None


def retry_after_s(headers: Mapping[str, Any]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date); never negative.

    A date counts from the response's own `date` where it has one, so that no clock that jumps matters. A header that
    cannot be read counts as absent.
    """
    lowered = {str(name).lower().removeprefix("llm_provider-"): value for name, value in headers.items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lowered.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit_s
        except (TypeError, ValueError):
            seconds = _seconds_between(str(lowered.get("date")), str(value))
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _seconds_between(now: str, then: str) -> float:
    """Two HTTP dates; the first may be missing, and the second be no date (NaN)."""
    moment = _moment(then)
    if moment is None:
        return math.nan
    return (moment - (_moment(now) or datetime.now(UTC))).total_seconds()


def _moment(date: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _headers(error: BaseException) -> Mapping[str, Any]:
    """The provider's response headers, wherever LiteLLM has put them."""
    for one in chain(error):
        for holder in (
            getattr(one, "litellm_response_headers", None),
            getattr(getattr(one, "response", None), "headers", None),
        ):
            if holder and any("retry-after" in str(name).lower() for name in holder):
                return dict(holder)
    return {}


def _message(error: BaseException, scrubber: SecretRedactor) -> str:
    """One line for people: the exception's class and what it says, without tracebacks."""
    original = getattr(error, "original_exception", None)
    shown = original if isinstance(original, Exception) else error
    text = scrubber.redact(str(getattr(shown, "message", None) or shown))
    text = text.split("Traceback (most recent call last)")[0].strip()
    text = " ".join(text.split())
    name = type(shown).__name__
    while match := CLASS_PREFIX.match(text):  # LiteLLM names the classes it went through, once or more
        text = text[match.end() :]
    return f"{name}: {printable(text[:LONGEST_MESSAGE])}" if text else name
