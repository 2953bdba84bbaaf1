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
