"""Several deployments of one model."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from eccos_core.backends.litellm.load_balancer import LoadBalancer
from eccos_core.config.schema import Deployment
from eccos_core.errors import BackendError


def deployments(*weights: float | None) -> list[Deployment]:
    return [Deployment(f"openai/{place}", {}, weight=weight) for place, weight in enumerate(weights)]


def served(balancer: LoadBalancer, calls: int) -> Counter[str]:
    counted: Counter[str] = Counter()
    for _ in range(calls):
        with balancer.choose() as chosen:
            counted[chosen.litellm_model] += 1
    return counted


def failing(balancer: LoadBalancer, kind: str, retry_after_s: float | None = None) -> str:
    with pytest.raises(BackendError), balancer.choose() as chosen:
        raise BackendError("m", "broken", retryable=True, kind=kind, retry_after_s=retry_after_s)
    return chosen.litellm_model


def test_calls_follow_the_weights() -> None:
    assert served(LoadBalancer(deployments(3, 1)), 40) == {"openai/0": 30, "openai/1": 10}


def test_without_weights_requests_per_minute_are_the_shares() -> None:
    ways = [Deployment("a", {}, rpm=10), Deployment("b", {}, rpm=30)]
    assert served(LoadBalancer(ways), 40) == {"a": 10, "b": 30}


def test_one_unit_decides_the_shares() -> None:
    weighted = [Deployment("a", {}, weight=2), Deployment("b", {}, rpm=600)]
    assert served(LoadBalancer(weighted), 30) == {"a": 20, "b": 10}, "a limit is no weight"
    limited = [Deployment("a", {}, rpm=60), Deployment("b", {}, tpm=60_000), Deployment("c", {}, rpm=180)]
    assert served(LoadBalancer(limited), 60) == {"a": 10, "b": 20, "c": 30}, "tokens are no requests"


def test_the_lowest_order_comes_first_and_the_next_one_when_it_is_left_alone() -> None:
    ways = [Deployment("spare", {}, order=2), Deployment("any", {}), Deployment("first", {}, order=1)]
    balancer = LoadBalancer(ways)
    assert served(balancer, 5) == {"first": 5}
    failing(balancer, "unavailable")
    assert served(balancer, 5) == {"spare": 5}


@pytest.mark.parametrize("earlier", [None, BackendError("m", "boom", kind="unavailable")])
def test_an_earlier_call_that_ends_does_not_shorten_the_time_that_was_asked_for(earlier: BackendError | None) -> None:
    now = [0.0]
    balancer = LoadBalancer([Deployment("a", {}, weight=9), Deployment("b", {}, weight=1)], clock=lambda: now[0])
    calls = [balancer.choose() for _ in range(3)]
    ways = [call.__enter__().litellm_model for call in calls]
    assert ways == ["a", "b", "a"]
    first, _, last = calls
    asked = BackendError("m", "slow down", kind="rate_limit", retry_after_s=20.0)
    last.__exit__(type(asked), asked, None)
    now[0] = 1.0
    first.__exit__(type(earlier) if earlier else None, earlier, None)
    for later in (1.1, 3.5, 19.0):
        now[0] = later
        assert set(served(balancer, 5)) == {"b"}
    now[0] = 20.1
    assert "a" in served(balancer, 20)


def test_an_error_says_whether_another_deployment_can_be_called_now() -> None:
    now = [0.0]
    balancer = LoadBalancer(deployments(1, 1), clock=lambda: now[0])

    def fail(retry_after_s: float | None) -> BackendError:
        error = BackendError("m", "busy", kind="rate_limit", retry_after_s=retry_after_s)
        with pytest.raises(BackendError), balancer.choose():
            raise error
        return balancer.redirect(error)

    first = fail(8.0)
    assert (first.elsewhere, first.retry_after_s) == (True, None)
    second = fail(30.0)
    assert (second.elsewhere, second.retry_after_s) == (False, 8.0), "the first comes back first"


def test_the_error_of_an_only_deployment_stays_as_it_is() -> None:
    balancer = LoadBalancer(deployments(None))
    error = balancer.redirect(BackendError("m", "busy", kind="rate_limit", retry_after_s=8.0))
    assert (error.elsewhere, error.retry_after_s) == (False, 8.0)


def test_a_busy_deployment_is_passed_over() -> None:
    balancer = LoadBalancer(deployments(None, None))
    with ExitStack() as stack:
        first = stack.enter_context(balancer.choose()).litellm_model
        second = stack.enter_context(balancer.choose()).litellm_model
    assert first != second


def test_a_deployment_that_failed_is_left_alone_for_longer_and_longer() -> None:
    now = [0.0]
    balancer = LoadBalancer(deployments(1, 1), clock=lambda: now[0])
    broken = failing(balancer, "unavailable")
    assert broken not in served(balancer, 5)
    now[0] += 1.1
    assert failing(balancer, "unavailable") == broken
    now[0] += 1.1
    assert broken not in served(balancer, 5), "two seconds after the second failure"
    now[0] += 1.0
    assert broken in served(balancer, 5)


def test_a_deployment_that_named_a_time_is_left_alone_for_it() -> None:
    now = [0.0]
    balancer = LoadBalancer(deployments(1, 1), clock=lambda: now[0])
    broken = failing(balancer, "rate_limit", retry_after_s=20)
    now[0] += 19
    assert broken not in served(balancer, 5)
    now[0] += 1
    assert broken in served(balancer, 20)


def test_when_all_are_left_alone_the_one_that_comes_back_first_is_tried() -> None:
    now = [0.0]
    balancer = LoadBalancer(deployments(1, 1), clock=lambda: now[0])
    failing(balancer, "rate_limit", retry_after_s=20)
    second = failing(balancer, "rate_limit", retry_after_s=5)
    assert second in served(balancer, 1)


def test_a_bad_request_is_not_the_deployments_fault() -> None:
    balancer = LoadBalancer(deployments(1, 1))
    failing(balancer, "bad_request")
    assert set(served(balancer, 4)) == {"openai/0", "openai/1"}
