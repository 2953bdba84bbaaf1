import pytest

from eccos_core.domain import Decision
from eccos_core.errors import AttemptsExhausted, BackendError, StreamInterrupted
from eccos_core.routing.fallbacks import FallbackChain

DECISION = Decision(
    id="d", request_id="r", model="a", quality=0.9, quality_se=0.0, cost_usd=0.0, runner_up="b", reason="",
    fallbacks=("b", "c"),
)  # fmt: skip


def test_a_failure_moves_on_to_the_next_best_model() -> None:
    attempts = FallbackChain(DECISION, limit=3)
    attempts.record_failure(BackendError("a", "busy", retryable=True, kind="rate_limit"), 0.1)
    assert (attempts.model, attempts.count) == ("b", 2)


def test_when_all_failed_the_error_lists_every_attempt() -> None:
    attempts = FallbackChain(DECISION, limit=2)
    attempts.record_failure(BackendError("a", "busy", retryable=True, kind="rate_limit"), 0.1)
    with pytest.raises(AttemptsExhausted) as caught:
        attempts.record_failure(BackendError("b", "gone", retryable=True, kind="unavailable"), 0.2)
    assert [(one.model, one.kind) for one in caught.value.attempts] == [("a", "rate_limit"), ("b", "unavailable")]
    assert "a: busy" in str(caught.value)
    assert "b: gone" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        BackendError("a", "no such parameter", retryable=False, kind="bad_request"),
        StreamInterrupted("a", "reset by peer", received="half an ans"),
    ],
)
def test_what_another_model_cannot_mend_is_raised_at_once(error: BackendError) -> None:
    attempts = FallbackChain(DECISION, limit=3)
    with pytest.raises(type(error)) as caught:
        attempts.record_failure(error, 0.1)
    assert caught.value is error


def test_a_context_window_error_goes_to_another_model() -> None:
    attempts = FallbackChain(DECISION, limit=3)
    attempts.record_failure(BackendError("a", "too long", retryable=False, kind="context_window"), 0.1)
    assert attempts.model == "b"
