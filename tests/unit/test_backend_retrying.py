"""Retries of one model: how often, how long, how far."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.backends import RetryingBackend, RetryPolicy
from eccos_core.domain import Request
from eccos_core.errors import BackendError, InputError, StreamInterrupted
from eccos_core.testing import ScriptedBackend

REQUEST = Request.of("why?")


def failure(kind: str = "unavailable", retryable: bool = True, retry_after_s: float | None = None) -> BackendError:
    return BackendError("m", "broken", retryable=retryable, kind=kind, retry_after_s=retry_after_s)


class Waits:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)

    async def later(self, seconds: float) -> None:
        self.seconds.append(seconds)


def backend(
    *script: str | BackendError, policy: RetryPolicy | None = None, draw: float = 0.5
) -> tuple[RetryingBackend, ScriptedBackend, Waits]:
    scripted, waits = ScriptedBackend({"m": list(script)}), Waits()
    return RetryingBackend(scripted, policy, draw=lambda: draw, sleep=waits, asleep=waits.later), scripted, waits


def test_a_retryable_failure_is_tried_again_after_longer_and_longer_waits() -> None:
    retrying, scripted, waits = backend(failure(), failure(), "because")
    completion = retrying.complete("m", REQUEST)
    assert (completion.text, completion.attempts, len(scripted.calls)) == ("because", 3, 3)
    assert waits.seconds == [0.5, 1.0]


async def test_the_asynchronous_twin_does_the_same() -> None:
    retrying, _, waits = backend(failure(), failure(), "because")
    assert (await retrying.acomplete("m", REQUEST)).attempts == 3
    assert waits.seconds == [0.5, 1.0]
    retrying, _, _ = backend(failure(), "because so")
    chunks = [chunk async for chunk in retrying.astream("m", REQUEST)]
    assert chunks[-1].completion is not None
    assert chunks[-1].completion.attempts == 2


def test_after_the_last_attempt_the_failure_is_raised_as_it_is() -> None:
    error = failure()
    retrying, scripted, _ = backend(error, policy=RetryPolicy(attempts=2))
    with pytest.raises(BackendError) as caught:
        retrying.complete("m", REQUEST)
    assert caught.value is error
    assert len(scripted.calls) == 2


@pytest.mark.parametrize("kind", ["content_policy", "context_window", "bad_request", "authentication"])
def test_what_cannot_get_better_is_not_tried_again(kind: str) -> None:
    retrying, scripted, waits = backend(failure(kind, retryable=False), "because")
    with pytest.raises(BackendError):
        retrying.complete("m", REQUEST)
    assert (len(scripted.calls), waits.seconds) == (1, [])


def test_the_provider_says_how_long_to_wait() -> None:
    retrying, _, waits = backend(failure(retry_after_s=7.0), "because")
    retrying.complete("m", REQUEST)
    assert waits.seconds == [7.5]


@pytest.mark.parametrize("said", [-3.0, 0.0, float("nan")])
def test_a_retry_after_that_is_not_in_the_future_counts_as_not_said(said: float) -> None:
    retrying, _, waits = backend(failure(retry_after_s=said), "because")
    retrying.complete("m", REQUEST)
    assert waits.seconds == [0.5]


def test_a_wait_that_would_pass_the_deadline_is_not_begun() -> None:
    retrying, scripted, waits = backend(failure(retry_after_s=100), "because", policy=RetryPolicy(deadline_s=50))
    with pytest.raises(BackendError, match="broken"):
        retrying.complete("m", REQUEST)
    assert (len(scripted.calls), waits.seconds) == (1, [])


def test_each_call_gets_what_is_left_of_the_deadline_in_few_different_timeouts() -> None:
    retrying, scripted, _ = backend(failure(), failure(), "because", policy=RetryPolicy(deadline_s=50))
    retrying.complete("m", REQUEST)
    assert [request.parameters["timeout"] for _, request in scripted.calls] == [50, 25, 25]
    retrying.complete("m", Request.of("why?", parameters={"timeout": 3}))
    assert scripted.calls[-1][1].parameters["timeout"] == 3
    retrying.complete("m", Request.of("why?", parameters={"timeout": 300}))
    assert scripted.calls[-1][1].parameters["timeout"] == 50


def test_a_stream_is_tried_again_only_before_its_first_piece() -> None:
    retrying, scripted, _ = backend(failure(), "because so")
    chunks = list(retrying.stream("m", REQUEST))
    assert "".join(chunk.text for chunk in chunks) == "because so"
    assert chunks[-1].completion is not None
    assert (chunks[-1].completion.attempts, len(scripted.calls)) == (2, 2)

    retrying, scripted, _ = backend(StreamInterrupted("m", "cut", received="because"), "because so")
    received = []
    with pytest.raises(StreamInterrupted) as caught:
        received.extend(retrying.stream("m", REQUEST))
    assert caught.value.received == "because"
    assert len(scripted.calls) == 1


async def test_cancelling_while_it_waits_ends_it() -> None:
    scripted = ScriptedBackend({"m": [failure(retry_after_s=100)]})
    task = asyncio.create_task(RetryingBackend(scripted).acomplete("m", REQUEST))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(scripted.calls) == 1


@given(
    attempt=st.integers(1, 10_000),
    said=st.none() | st.floats(allow_nan=True, allow_infinity=False),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_waits_are_never_negative(attempt: int, said: float | None, draw: float) -> None:
    policy = RetryPolicy()
    wait_s = policy.wait_s(attempt, failure(retry_after_s=said), draw)
    assert wait_s >= 0
    if said is not None and said > 0:
        assert wait_s >= said
    else:
        assert wait_s <= policy.max_backoff_s


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"deadline_s": -1}, {"initial_backoff_s": float("nan")}])
def test_a_policy_without_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
