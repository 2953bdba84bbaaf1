"""What every optimizer promises, whatever its method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eccos_core.domain import Budget, GroupShare, Policy, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError, InputError, NoEligibleModelError
from eccos_core.optimizer import DualOptimizer, ExactOptimizer, GreedyOptimizer
from eccos_core.protocols import Optimizer

OPTIMIZERS: list[Optimizer] = [
    DualOptimizer(),
    ExactOptimizer("cp_sat", time_limit_s=10),
    ExactOptimizer("glop"),
    GreedyOptimizer(),
]
POLICIES: list[Policy] = [QualityFloor(0.7), Budget(1.2), QualityPrice(0.001)]


def problem_of(policy: Policy, requests: int = 30, seed: int = 0) -> RoutingProblem:
    """Three models, the dearer the better; the middle one takes a third of the requests."""
    generator = np.random.default_rng(seed)
    skill = np.array([0.45, 0.7, 0.9])
    quality = np.clip(skill + generator.normal(0, 0.1, (requests, 3)), 0, 1)
    cost = np.array([0.001, 0.01, 0.1]) * np.exp(generator.normal(0, 0.3, (requests, 1)))
    eligible = np.ones((requests, 3), dtype=bool)
    eligible[:3, 0] = False
    capacity = np.array([requests, requests // 3, requests], dtype=np.int64)
    return RoutingProblem(quality, cost, eligible, capacity, policy, ("small", "medium", "large"))


@pytest.fixture(params=OPTIMIZERS, ids=["dual", "exact-cp_sat", "exact-glop", "greedy"])
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    chosen: Optimizer = request.param
    assert isinstance(chosen, Optimizer)
    return chosen


@pytest.mark.parametrize("policy", POLICIES, ids=["floor", "budget", "priced"])
def test_an_answer_keeps_policy_caps_and_eligibility_and_adds_up(optimizer: Optimizer, policy: Policy) -> None:
    problem = problem_of(policy)
    answer = optimizer.solve(problem)
    rows = np.arange(30)
    assert answer.model_index.shape == (30,)
    assert problem.eligible[rows, answer.model_index].all()
    assert (np.bincount(answer.model_index, minlength=3) <= problem.capacity).all()
    assert answer.cost_usd == pytest.approx(problem.cost_usd[rows, answer.model_index].sum())
    assert answer.quality == pytest.approx(problem.quality[rows, answer.model_index].mean())
    assert 0 <= answer.lower_bound_usd <= answer.cost_usd
    assert 0 <= answer.gap <= 1
    assert answer.prices.slots.shape == (3,)
    assert (answer.prices.slots >= 0).all()
    assert answer.prices.quality >= 0
    if isinstance(policy, QualityFloor):
        assert answer.quality >= policy.alpha - 1e-9
    if isinstance(policy, Budget):
        assert answer.cost_usd <= policy.usd * (1 + 1e-9)
        assert answer.upper_bound_quality is not None
        assert answer.upper_bound_quality >= answer.quality


@pytest.mark.parametrize("policy", POLICIES, ids=["floor", "budget", "priced"])
def test_a_least_quality_per_request_is_kept(optimizer: Optimizer, policy: Policy) -> None:
    wanted = np.full(30, 0.5)
    problem = replace(problem_of(policy), min_quality=wanted)
    answer = optimizer.solve(problem)
    assert (problem.quality[np.arange(30), answer.model_index] >= wanted - 1e-9).all()


def test_a_least_quality_that_no_model_reaches_names_the_request(optimizer: Optimizer) -> None:
    wanted = np.zeros(30)
    wanted[7] = 1.0
    problem = replace(problem_of(QualityFloor(0.6)), min_quality=wanted)
    problem.quality[7] = [0.1, 0.2, 0.75]
    with pytest.raises(InfeasibleError, match=r"request 7 .* 1\.000.*'large', reaches 0\.750") as caught:
        optimizer.solve(problem)
    assert caught.value.attainable == pytest.approx(0.75)


def test_a_floor_out_of_reach_says_what_is_attainable(optimizer: Optimizer) -> None:
    problem = problem_of(QualityFloor(0.99))
    with pytest.raises(
        InfeasibleError, match=r"quality floor 0\.99 is out of reach; the best these 30 requests"
    ) as caught:
        optimizer.solve(problem)
    best = caught.value.attainable
    assert best < 0.99
    reached = optimizer.solve(replace(problem, policy=QualityFloor(best)))
    assert reached.quality == pytest.approx(best)


def test_a_budget_out_of_reach_says_what_is_attainable(optimizer: Optimizer) -> None:
    problem = problem_of(Budget(1e-4))
    with pytest.raises(InfeasibleError, match=r"budget 0\.0001 USD is out of reach; the cheapest these 30") as caught:
        optimizer.solve(problem)
    reached = optimizer.solve(replace(problem, policy=Budget(caught.value.attainable)))
    assert reached.cost_usd == pytest.approx(caught.value.attainable)


@pytest.mark.parametrize(
    "policy", [QualityFloor(0.99, "best_effort"), Budget(1e-4, "best_effort")], ids=["floor", "budget"]
)
def test_best_effort_gives_the_nearest_answer_and_says_so(optimizer: Optimizer, policy: Policy) -> None:
    problem = problem_of(policy)
    with pytest.raises(InfeasibleError) as caught:
        optimizer.solve(replace(problem, policy=replace(policy, on_infeasible="error")))
    answer = optimizer.solve(problem)
    assert answer.status is SolutionStatus.BEST_EFFORT
    assert "out of reach" in answer.note
    nearest = answer.quality if isinstance(policy, QualityFloor) else answer.cost_usd
    assert nearest == pytest.approx(caught.value.attainable)


def test_best_effort_comes_as_near_as_it_can_to_a_least_quality(optimizer: Optimizer) -> None:
    wanted = np.zeros(30)
    wanted[7] = 1.0
    problem = replace(problem_of(QualityFloor(0.6, "best_effort")), min_quality=wanted)
    answer = optimizer.solve(problem)
    assert answer.status is SolutionStatus.BEST_EFFORT
    assert answer.model_index[7] == problem.quality[7].argmax()
    assert "request 7" in answer.note


@pytest.mark.parametrize("effort", ["error", "best_effort"])
def test_more_requests_than_slots_is_an_error_whatever_the_effort(optimizer: Optimizer, effort: str) -> None:
    policy = QualityFloor(0.1, "best_effort" if effort == "best_effort" else "error")
    problem = replace(problem_of(policy), capacity=np.array([5, 10, 10], dtype=np.int64))
    with pytest.raises(InfeasibleError, match=r"30 requests") as caught:
        optimizer.solve(problem)
    assert caught.value.constraint == "capacity"
    assert caught.value.wanted == 30
    assert caught.value.attainable <= 25


def test_a_share_of_calls_is_kept(optimizer: Optimizer) -> None:
    groups = (GroupShare("committed", np.array([False, True, True]), 0.3, 0.6),)
    problem = replace(problem_of(QualityPrice(0.005)), groups=groups)
    answer = optimizer.solve(problem)
    assert 9 <= np.isin(answer.model_index, [1, 2]).sum() <= 18


BAD = {
    "a NaN quality": ({"quality": np.array([[np.nan, 0.5, 0.5]])}, "quality of request 0 and model 'small' is nan"),
    "a quality above one": ({"quality": np.array([[0.1, 1.5, 0.5]])}, r"'medium' is 1\.5, must be in \[0, 1\]"),
    "an infinite cost": (
        {"cost_usd": np.array([[0.1, 0.1, np.inf]])},
        "cost_usd of request 0 and model 'large' is inf",
    ),
    "a negative cost": ({"cost_usd": np.array([[0.1, -0.1, 0.1]])}, r"'medium' is -0\.1, must be >= 0"),
    "a short capacity": ({"capacity": np.array([1, 1])}, r"capacity has shape \(2,\), must be \(3,\)"),
    "a negative capacity": ({"capacity": np.array([1, -1, 1])}, "capacity of model 'medium' is -1"),
    "another shape": ({"cost_usd": np.ones((2, 3))}, r"cost_usd has shape \(2, 3\), must be \(1, 3\)"),
    "a mask of numbers": ({"eligible": np.ones((1, 3))}, "eligible has type float64, must be bool"),
    "a NaN minimum": ({"min_quality": np.array([np.nan])}, "min_quality of request 0 is nan"),
    "twins": ({"models": ("a", "b", "a")}, "model names must differ"),
    "a group of the wrong size": (
        {"groups": (GroupShare("eu", np.array([True]), 0.1),)},
        r"group 'eu': members has shape \(1,\), must be \(3,\)",
    ),
    "shares the wrong way round": (
        {"groups": (GroupShare("eu", np.array([True, False, False]), 0.9, 0.1),)},
        "shares must be 0 <= at_least <= at_most <= 1",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=list(BAD))
def test_bad_numbers_are_named(optimizer: Optimizer, change: dict[str, object], message: str) -> None:
    good = RoutingProblem(
        np.full((1, 3), 0.5), np.ones((1, 3)), np.ones((1, 3), dtype=bool), np.ones(3, dtype=np.int64),
        QualityFloor(0.3), ("small", "medium", "large"),
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        optimizer.solve(replace(good, **change))  # type: ignore[arg-type]


def test_no_requests_is_an_error(optimizer: Optimizer) -> None:
    empty = RoutingProblem(
        np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), dtype=bool), np.ones(3, dtype=np.int64),
        QualityFloor(0.3), ("a", "b", "c"),
    )  # fmt: skip
    with pytest.raises(InputError, match="no requests"):
        optimizer.solve(empty)


def test_no_slots_at_all_is_an_error(optimizer: Optimizer) -> None:
    problem = replace(problem_of(QualityFloor(0.1)), capacity=np.zeros(3, dtype=np.int64))
    with pytest.raises(InfeasibleError, match="30 requests"):
        optimizer.solve(problem)


def test_a_request_without_a_model_is_named(optimizer: Optimizer) -> None:
    problem = problem_of(QualityFloor(0.1))
    problem.eligible[4] = False
    with pytest.raises(NoEligibleModelError, match="'#4': no model") as caught:
        optimizer.solve(problem)
    assert set(caught.value.reasons) == {"small", "medium", "large"}


def test_one_request_and_one_model_is_enough(optimizer: Optimizer) -> None:
    one = np.ones((1, 1))
    problem = RoutingProblem(0.5 * one, one, one.astype(bool), np.array([1]), QualityFloor(0.5), ("only",))
    answer = optimizer.solve(problem)
    assert answer.model_index.tolist() == [0]
    assert answer.cost_usd == 1.0


def test_models_that_cost_nothing_are_no_special_case(optimizer: Optimizer) -> None:
    problem = replace(problem_of(QualityFloor(0.7)), cost_usd=np.zeros((30, 3)))
    answer = optimizer.solve(problem)
    assert answer.cost_usd == 0
    assert answer.gap == 0
