"""The clever against the obvious: on small problems all M**R assignments tell the truth."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eccos_core.domain import Assignment, Budget, GroupShare, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer import DualOptimizer, ExactOptimizer, GreedyOptimizer
from eccos_core.optimizer.validation import BUDGET_TOLERANCE, FLOOR_TOLERANCE
from eccos_core.protocols import Optimizer

TOLERANCE = 2e-9

numbers = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1, width=32))


@st.composite
def problems(draw: st.DrawFn, *, groups: bool = False, minimum: bool = True) -> RoutingProblem:
    requests, models = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    cells = requests * models
    quality = np.array(draw(st.lists(numbers, min_size=cells, max_size=cells))).reshape(requests, models)
    cost = np.array(draw(st.lists(numbers, min_size=cells, max_size=cells))).reshape(requests, models)
    eligible = np.array(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).reshape(requests, models)
    eligible[~eligible.any(axis=1)] = True
    capacity = np.array(draw(st.lists(st.integers(0, requests + 1), min_size=models, max_size=models)), dtype=np.int64)
    policy = draw(
        st.one_of(
            st.builds(QualityFloor, numbers),
            st.builds(Budget, st.floats(0, requests, width=32)),
            st.builds(QualityPrice, st.floats(0, 0.05)),
        )
    )
    shares = []
    if groups:
        for number in range(draw(st.integers(1, 2))):
            members = np.array(draw(st.lists(st.booleans(), min_size=models, max_size=models)))
            low, high = sorted(
                [draw(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0])), draw(st.sampled_from([0.3, 0.6, 1.0]))]
            )
            shares.append(GroupShare(f"group {number}", members, low, high))
    min_quality = None
    if minimum and draw(st.booleans()):
        asked = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=requests, max_size=requests))
        min_quality = np.minimum(asked, np.where(eligible, quality, -1).max(axis=1))
    return RoutingProblem(
        quality, cost, eligible, capacity, policy, tuple("abcd"[:models]), min_quality=min_quality, groups=tuple(shares)
    )


@dataclass
class Truth:
    """cost and mean quality of every assignment that keeps caps, groups, eligibility and least quality."""

    cost: np.ndarray
    quality: np.ndarray


def enumerate_all(problem: RoutingProblem) -> Truth:
    requests, models = problem.quality.shape
    costs, qualities = [], []
    for choice in itertools.product(range(models), repeat=requests):
        rows, index = np.arange(requests), np.array(choice)
        loads = np.bincount(index, minlength=models)
        if not problem.eligible[rows, index].all() or (loads > problem.capacity).any():
            continue
        if problem.min_quality is not None and (problem.quality[rows, index] < problem.min_quality - 1e-9).any():
            continue
        if not all(
            group.at_least * requests - 1e-9 <= loads[group.members].sum() <= group.at_most * requests + 1e-9
            for group in problem.groups
        ):
            continue
        costs.append(math.fsum(problem.cost_usd[rows, index]))
        qualities.append(math.fsum(problem.quality[rows, index]) / requests)
    return Truth(np.array(costs), np.array(qualities))


def assert_keeps_everything(problem: RoutingProblem, choice: np.ndarray) -> None:
    requests, models = problem.quality.shape
    rows = np.arange(requests)
    loads = np.bincount(choice, minlength=models)
    assert problem.eligible[rows, choice].all()
    assert (loads <= problem.capacity).all()
    if problem.min_quality is not None:
        assert (problem.quality[rows, choice] >= problem.min_quality - 1e-9).all()
    for group in problem.groups:
        assert group.at_least * requests - 1e-9 <= loads[group.members].sum() <= group.at_most * requests + 1e-9


def solve(problem: RoutingProblem, optimizer: Optimizer) -> Assignment | InfeasibleError:
    try:
        return optimizer.solve(problem)
    except InfeasibleError as error:
        return error


def check_error(problem: RoutingProblem, error: InfeasibleError, truth: Truth, feasible: np.ndarray) -> None:
    assert not feasible.any(), f"feasible, but {error}"
    if error.constraint == "quality floor":
        assert error.attainable == pytest.approx(truth.quality.max(), abs=1e-9)
    elif error.constraint == "budget":
        assert error.attainable == pytest.approx(truth.cost.min(), abs=1e-9)
    else:
        assert len(truth.cost) == 0, f"something is feasible, but {error}"


def check_against_truth(problem: RoutingProblem, optimizer: Optimizer) -> None:
    truth = enumerate_all(problem)
    match problem.policy:
        case QualityFloor(alpha=alpha):
            feasible = truth.quality >= alpha - TOLERANCE / 2
        case Budget(usd=usd):
            feasible = truth.cost <= usd * (1 + TOLERANCE / 2)
        case _:
            feasible = np.ones(len(truth.cost), dtype=bool)
    answer = solve(problem, optimizer)
    if isinstance(answer, InfeasibleError):
        check_error(problem, answer, truth, feasible)
        return
    assert feasible.any()
    assert_keeps_everything(problem, answer.model_index)
    assert 0 <= answer.gap <= 1
    match problem.policy:
        case QualityFloor(alpha=alpha):
            best = truth.cost[feasible].min()
            assert answer.quality >= alpha - TOLERANCE
            assert answer.lower_bound_usd <= best + 1e-8
            assert best - 1e-8 <= answer.cost_usd
            assert answer.cost_usd * (1 - answer.gap) <= best + 1e-8
            if not problem.groups:
                assert answer.prices.quality >= 0
                assert (answer.prices.slots >= 0).all()
        case Budget(usd=usd):
            best = truth.quality[feasible].max()
            assert answer.cost_usd <= usd * (1 + TOLERANCE)
            assert answer.upper_bound_quality is not None
            assert best - 1e-8 <= answer.upper_bound_quality
            assert answer.quality <= best + 1e-8
        case QualityPrice() as priced:
            worth = truth.cost - priced.usd_per_quality * truth.quality * len(problem.quality)
            mine = answer.cost_usd - priced.usd_per_quality * answer.quality * len(problem.quality)
            if not problem.groups:
                assert mine == pytest.approx(worth.min(), abs=1e-8)
                assert answer.status is SolutionStatus.OPTIMAL or answer.cost_usd < 1e-6
            same = truth.quality >= answer.quality - 1e-9
            assert answer.lower_bound_usd <= truth.cost[same].min() + 1e-8


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_an_answer_exists_exactly_when_one_is_feasible_and_lies_within_its_gap(problem: RoutingProblem) -> None:
    check_against_truth(problem, DualOptimizer())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems(groups=True))
def test_group_shares_are_kept_exactly_when_they_can_be(problem: RoutingProblem) -> None:
    check_against_truth(problem, DualOptimizer())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems(groups=True), st.sampled_from(["cp_sat", "glop"]))
def test_or_tools_agrees_with_exhaustive_search(problem: RoutingProblem, engine: Literal["cp_sat", "glop"]) -> None:
    check_against_truth(problem, ExactOptimizer(engine))


@settings(max_examples=150, deadline=None)
@given(problems(), st.randoms(use_true_random=False), st.sampled_from([1e-6, 0.5, 3.7, 1e4]))
def test_reordering_and_the_currency_change_nothing(problem: RoutingProblem, random: object, unit: float) -> None:
    requests, models = problem.quality.shape
    rows, columns = list(range(requests)), list(range(models))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    policy = problem.policy
    if isinstance(policy, Budget):
        policy = Budget(policy.usd * unit)
    if isinstance(policy, QualityPrice):
        policy = QualityPrice(policy.usd_per_quality_point * unit)
    other = replace(
        problem,
        quality=problem.quality[np.ix_(rows, columns)],
        cost_usd=problem.cost_usd[np.ix_(rows, columns)] * unit,
        eligible=problem.eligible[np.ix_(rows, columns)],
        capacity=problem.capacity[columns],
        min_quality=None if problem.min_quality is None else problem.min_quality[rows],
        models=tuple(problem.models[j] for j in columns),
        policy=policy,
    )
    first, second = solve(problem, DualOptimizer()), solve(other, DualOptimizer())
    if isinstance(first, InfeasibleError) or isinstance(second, InfeasibleError):
        assert isinstance(first, InfeasibleError)
        assert isinstance(second, InfeasibleError)
        assert first.constraint.split()[0] == second.constraint.split()[0]
        return
    if isinstance(policy, QualityPrice):  # several assignments may be optimal: the net is what is equal
        worth = [
            a.cost_usd - p.usd_per_quality * a.quality * requests
            for a, p in ((first, problem.policy), (second, policy))
        ]
        assert worth[1] == pytest.approx(worth[0] * unit, rel=1e-9, abs=1e-9 * unit)
    else:
        assert second.cost_usd == pytest.approx(first.cost_usd * unit, rel=1e-9, abs=1e-12 * unit)
        assert second.quality == pytest.approx(first.quality, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(problems(minimum=False))
def test_a_limit_that_is_not_used_up_has_no_price_beyond_the_gap(problem: RoutingProblem) -> None:
    answer = solve(problem, DualOptimizer())
    if isinstance(answer, InfeasibleError) or isinstance(problem.policy, Budget):
        return
    requests, models = problem.quality.shape
    slack = problem.capacity - np.bincount(answer.model_index, minlength=models)
    paid = float((answer.prices.slots * np.maximum(slack, 0)).sum())
    if isinstance(problem.policy, QualityFloor):
        paid += answer.prices.quality * requests * max(answer.quality - problem.policy.alpha, 0.0)
    assert paid <= answer.gap * answer.cost_usd + 1e-6 * float(problem.cost_usd.max()) * (1 + requests) + 1e-12


OPTIMIZERS: tuple[Optimizer, ...] = (DualOptimizer(), ExactOptimizer("cp_sat"), ExactOptimizer("glop"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    problems(groups=True), st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 0.8, 0.99, 1.0, 1.01, 1.5, 2.0]), st.booleans()
)
def test_all_optimizers_agree_at_the_edge_of_the_tolerance(
    problem: RoutingProblem, tolerances: float, floor: bool
) -> None:
    truth = enumerate_all(problem)
    if not len(truth.cost):
        return
    if floor:
        alpha = float(truth.quality.max()) + tolerances * FLOOR_TOLERANCE
        if not 0 <= alpha <= 1:
            return
        edge = replace(problem, policy=QualityFloor(alpha))
    else:
        usd = float(truth.cost.min()) * (1 - tolerances * BUDGET_TOLERANCE)
        if usd == 0.0:  # a budget of nothing has no tolerance
            return
        edge = replace(problem, policy=Budget(usd))
    answers = [solve(edge, optimizer) for optimizer in OPTIMIZERS]
    solved = [not isinstance(answer, InfeasibleError) for answer in answers]
    if tolerances != 1.0:  # at the edge itself, the rounding of the sums decides
        assert solved == [tolerances < 1.0] * len(OPTIMIZERS)
    greedy = solve(edge, GreedyOptimizer())
    if not isinstance(greedy, InfeasibleError):
        assert all(solved), "greedy found what the others say is not there"


def test_a_floor_within_the_tolerance_is_met_by_every_optimizer() -> None:
    group = (GroupShare("group", np.array([False, False]), 0.0, 0.3),)
    for best, alpha in ((0.0, 1e-9), (0.8, 0.8 + 8e-10)):
        for groups in (group, ()):
            problem = RoutingProblem(
                np.array([[best, best]]), np.zeros((1, 2)), np.ones((1, 2), dtype=bool), np.array([0, 1]),
                QualityFloor(alpha), ("a", "b"), groups=groups,
            )  # fmt: skip
            for optimizer in (*OPTIMIZERS, GreedyOptimizer()):
                assert optimizer.solve(problem).status is SolutionStatus.OPTIMAL, optimizer
                over = replace(problem, policy=QualityFloor(best + 1.5e-9))
                assert isinstance(solve(over, optimizer), InfeasibleError), optimizer
