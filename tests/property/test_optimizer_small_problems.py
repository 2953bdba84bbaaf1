"""Small problems against every assignment: no wrong optimum is ever certified, and no attainable limit refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from every_assignment import COST_STEPS, SmallProblem, draw_small_problem

from eccos_core.domain import Budget, QualityFloor, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer import AutoOptimizer, DualOptimizer, ExactOptimizer


@pytest.mark.parametrize("seed", range(300))
def test_no_optimizer_certifies_a_wrong_optimum(seed: int) -> None:
    small = draw_small_problem(seed)
    for solver in (AutoOptimizer(), ExactOptimizer(), DualOptimizer()):
        assert small.fault(small.solve(solver)) == "", solver


@pytest.mark.parametrize("seed", range(40))
def test_cp_sat_proves_every_small_problem(seed: int) -> None:
    small = draw_small_problem(seed)
    for solver in (AutoOptimizer(), ExactOptimizer()):
        answer = small.solve(solver)
        assert isinstance(answer, InfeasibleError) or answer.status is SolutionStatus.OPTIMAL, solver


@pytest.mark.parametrize("seed", range(40))
def test_the_optimum_without_dominated_assignments_is_that_of_all(seed: int) -> None:
    drawn, few = draw_small_problem(seed), slice(0, 4)
    problem = replace(drawn.problem, quality=drawn.problem.quality[few], eligible=drawn.problem.eligible[few])
    small = SmallProblem(problem, drawn.quality[few], drawn.cost[few], drawn.quality_steps)
    rows, models = np.arange(4), small.quality.shape[1]
    totals = [
        (int(small.cost[rows, choice].sum()), int(small.quality[rows, choice].sum()))
        for choice in map(np.array, itertools.product(range(models), repeat=4))
        if problem.eligible[rows, choice].all() and (np.bincount(choice, minlength=models) <= problem.capacity).all()
    ]
    if isinstance(problem.policy, Budget):
        affordable = [total for total in totals if total[0] <= problem.policy.usd * (1 + 1e-9) * COST_STEPS]
        best = min(affordable, key=lambda total: (-total[1], total[0]), default=None)
    else:
        assert isinstance(problem.policy, QualityFloor)
        least = (problem.policy.alpha - 1e-9) * 4 * small.quality_steps
        best = min((t for t in totals if t[1] >= least), key=lambda total: (total[0], -total[1]), default=None)
    assert small.optimum() == best


def test_the_problem_that_cp_sat_solved_wrongly_is_solved() -> None:
    """google/or-tools#5293: presolve removed the optimum, and the next best was certified."""
    quality = np.array([[95, 75, 40], [65, 55, 30], [10, 50, 60], [65, 100, 65], [25, 90, 15]])
    cost = np.array([[3, 15, 7], [16, 15, 4], [9, 5, 9], [8, 18, 19], [6, 11, 5]])
    problem = RoutingProblem(
        quality / 100, cost / COST_STEPS, np.ones((5, 3), bool), np.full(3, 5), QualityFloor(0.56), ("a", "b", "c")
    )
    for solver in (AutoOptimizer(), ExactOptimizer()):
        answer = solver.solve(problem)
        assert answer.cost_usd == pytest.approx(0.031)
        assert answer.status is SolutionStatus.OPTIMAL


@pytest.mark.parametrize("orders", [2, 6, 9])
@pytest.mark.parametrize("seed", range(15))
def test_a_budget_of_exactly_the_least_cost_is_attained(orders: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    cost = 10 ** generator.uniform(-orders, 0, (10, 4))
    least = float(cost.min(axis=1).sum())
    problem = RoutingProblem(
        generator.random((10, 4)), cost, np.ones((10, 4), bool), np.full(4, 10), Budget(least), tuple("abcd")
    )
    for solver in (AutoOptimizer(), ExactOptimizer(), ExactOptimizer("glop"), DualOptimizer()):
        assert solver.solve(problem).cost_usd == pytest.approx(least, rel=2e-9)


@pytest.mark.parametrize("seed", range(15))
def test_a_floor_of_exactly_the_best_quality_is_attained(seed: int) -> None:
    generator = np.random.default_rng(seed)
    quality = generator.random((10, 4))
    best = float(quality.max(axis=1).mean())
    problem = RoutingProblem(
        quality, generator.random((10, 4)), np.ones((10, 4), bool), np.full(4, 10), QualityFloor(best), tuple("abcd")
    )
    for solver in (AutoOptimizer(), ExactOptimizer(), ExactOptimizer("glop"), DualOptimizer()):
        assert solver.solve(problem).quality == pytest.approx(best, abs=2e-9)


@pytest.mark.parametrize("share", [1e-9, 1e-6, 1e-3, 0.1])
def test_a_budget_far_below_the_dearest_call_is_judged_exactly(share: float) -> None:
    """One call of 1 USD beside calls of a millionth: what fits into the budget is told to the last of them."""
    cost = np.array([[1.0, share], [1.0, share], [1.0, 2 * share]])
    quality = np.array([[0.9, 0.5], [0.9, 0.5], [0.9, 0.5]])
    problem = RoutingProblem(quality, cost, np.ones((3, 2), bool), np.full(2, 3), Budget(4 * share), ("dear", "cheap"))
    for solver in (AutoOptimizer(), ExactOptimizer(), DualOptimizer()):
        assert solver.solve(problem).model_index.tolist() == [1, 1, 1]
        with pytest.raises(Exception, match="is out of reach"):
            solver.solve(replace(problem, policy=Budget(4 * share * (1 - 1e-6))))
