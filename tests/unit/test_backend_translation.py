"""LiteLLM's exceptions become ours in one place."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from eccos_core.backends.litellm.error_mapping import retry_after_s, to_backend_error
from eccos_core.backends.litellm.redaction import SecretRedactor
from eccos_core.errors import BackendError

litellm = pytest.importorskip("litellm")
SCRUBBER = SecretRedactor([])


def response(status: int, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("POST", "http://x"))


@pytest.mark.parametrize(
    ("name", "kind", "retryable"),
    [
        ("AuthenticationError", "authentication", False),
        ("NotFoundError", "not_found", False),
        ("BadRequestError", "bad_request", False),
        ("UnsupportedParamsError", "unsupported", False),
        ("ContextWindowExceededError", "context_window", False),
        ("RateLimitError", "rate_limit", True),
        ("Timeout", "timeout", True),
        ("ServiceUnavailableError", "unavailable", True),
        ("InternalServerError", "unavailable", True),
        ("APIConnectionError", "connection", True),
    ],
)
def test_each_exception_has_its_kind(name: str, kind: str, retryable: bool) -> None:
    error = getattr(litellm, name)(message="it failed", model="m", llm_provider="openai")
    translated = to_backend_error("mine", error, SCRUBBER)
    assert (translated.model, translated.kind, translated.retryable) == ("mine", kind, retryable)
    assert "it failed" in str(translated)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "bad_request") for status in (400, 405, 406, 409, 410, 418, 422, 431, 451)),
        *((status, "authentication") for status in (401, 402, 403)),
        (404, "not_found"),
        (408, "timeout"),
        (413, "context_window"),
        (425, "unavailable"),
        (429, "rate_limit"),
        (500, "unavailable"),
        (529, "unavailable"),
    ],
)
def test_a_status_that_litellm_has_no_class_for_has_its_kind(status: int, kind: str) -> None:
    error = litellm.APIError(status, "it failed", "openai", "m")
    translated = to_backend_error("m", error, SCRUBBER)
    assert translated.kind == kind
    assert translated.kind.blames_model == (kind not in ("bad_request", "context_window"))


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (httpx.ReadTimeout("no byte"), "timeout"),
        (httpx.WriteTimeout("not taken"), "timeout"),
        (httpx.ConnectTimeout("nobody"), "connection"),
        (httpx.RemoteProtocolError("cut"), "connection"),
        (httpx.LocalProtocolError("Illegal header value"), "bad_request"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"), "malformed_response"),
    ],
)
def test_what_happened_on_the_wire_decides_where_litellm_says_500(cause: Exception, kind: str) -> None:
    error = caused(litellm.InternalServerError("it failed", "openai", "m"), cause=cause)
    assert to_backend_error("m", error, SCRUBBER).kind == kind


@pytest.mark.parametrize("cause", [KeyError("function"), TypeError("odd"), AttributeError("get"), RecursionError()])
def test_a_value_that_litellm_stumbles_over_is_the_requests_before_it_is_sent_and_the_answers_after(
    cause: Exception,
) -> None:
    error = caused(litellm.APIConnectionError("it failed", "anthropic", "m"), cause=cause)
    assert to_backend_error("m", error, SCRUBBER, sent=False).kind == "bad_request"
    assert to_backend_error("m", error, SCRUBBER, sent=True).kind == "malformed_response"


def test_a_request_that_litellm_itself_finds_invalid_is_a_bad_request() -> None:
    error = caused(litellm.APIConnectionError("Invalid user message", "openai", "m"), context=Exception("Invalid"))
    assert to_backend_error("m", error, SCRUBBER, sent=False).kind == "bad_request"
    assert to_backend_error("m", error, SCRUBBER, sent=True).kind == "connection"


def test_content_policy_is_not_retried() -> None:
    error = litellm.ContentPolicyViolationError(message="no", model="m", llm_provider="openai")
    assert to_backend_error("m", error, SCRUBBER).kind == "content_policy"
    assert not to_backend_error("m", error, SCRUBBER).retryable


def test_no_money_left_is_not_a_matter_of_waiting() -> None:
    error = litellm.RateLimitError("You exceeded your current quota, insufficient_quota", "openai", "m")
    translated = to_backend_error("m", error, SCRUBBER)
    assert (translated.kind, translated.retryable) == ("authentication", False)


def caused(error: Exception, *, cause: BaseException | None = None, context: BaseException | None = None) -> Exception:
    error.__cause__, error.__context__ = cause, context
    return error


def test_a_refused_connection_inside_a_500_is_a_connection_failure() -> None:
    error = litellm.InternalServerError("Connection error.", "openai", "m")
    error = caused(error, context=httpx.ConnectError("refused"))
    translated = to_backend_error("m", error, SCRUBBER, api_base="http://wrong/v1")
    assert translated.kind == "connection"
    assert "http://wrong/v1" in str(translated)


def test_json_that_cannot_be_read_is_a_malformed_response() -> None:
    error = caused(litellm.APIConnectionError("odd", "openai", "m"), cause=json.JSONDecodeError("odd", "{", 1))
    assert to_backend_error("m", error, SCRUBBER).kind == "malformed_response"


def test_an_earlier_failure_of_another_model_is_not_taken_for_this_one() -> None:
    earlier = caused(
        BackendError("other", "refused", retryable=True, kind="connection"), cause=httpx.ConnectError("refused")
    )
    error = caused(litellm.InternalServerError("broken", "openai", "m"), context=earlier)
    assert to_backend_error("m", error, SCRUBBER).kind == "unavailable"


def test_an_unknown_exception_is_not_retried() -> None:
    translated = to_backend_error("m", RuntimeError("what?"), SCRUBBER)
    assert (translated.kind, translated.retryable) == ("unknown", False)


def test_retry_after_is_read_from_the_response() -> None:
    error = litellm.RateLimitError("slow", "openai", "m", response=response(429, {"Retry-After": "2.5"}))
    assert to_backend_error("m", error, SCRUBBER).retry_after_s == 2.5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After-Ms": "250", "retry-after": "3"}, 0.25),
        ({"llm_provider-retry-after": "4"}, 4.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e300"}, 1e300),  # longer than any deadline: the next model is tried at once
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_never_negative_and_never_nonsense(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_may_be_a_date_and_a_clock_that_jumped_gives_zero() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=400), usegmt=True)
    waited = retry_after_s({"retry-after": soon})
    assert waited is not None
    assert 25 < waited <= 30
    assert retry_after_s({"retry-after": past}) == 0.0


def test_a_retry_after_date_counts_from_the_providers_own_clock() -> None:
    now = datetime.now(UTC) + timedelta(days=3)  # ours and theirs differ: one of them has jumped
    headers = {
        "date": format_datetime(now, usegmt=True),
        "retry-after": format_datetime(now + timedelta(seconds=30), usegmt=True),
    }
    assert retry_after_s(headers) == 30.0
