"""How good the answers are: gaps that were promised, and the same optimum by two methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from highs import solve_with_highs

from eccos_core.domain import Budget, Policy, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.optimizer import AutoOptimizer, DualOptimizer, ExactOptimizer, GreedyOptimizer
from eccos_core.optimizer.linear_program import LinearProgram, count_limits
from eccos_core.optimizer.min_cost_flow import repair_caps, solve_transport


def draw(requests: int, models: int, seed: int, ties: bool = False) -> RoutingProblem:
    """Dearer is better on the whole; the two models that would be busiest are capped below what they would get."""
    generator = np.random.default_rng(seed)
    usd = np.sort(np.exp(generator.uniform(0, 4, models))) * 1e-4
    skill = 0.5 * np.log(usd / usd[0]) + generator.normal(0, 0.3, models)
    quality = 1 / (
        1 + np.exp(generator.normal(1, 1.2, (requests, 1)) - skill + generator.normal(0, 0.6, (requests, models)))
    )
    cost = usd * np.exp(generator.normal(0, 0.5, (requests, models)))
    if ties:
        quality, cost = np.round(quality * 8) / 8, np.round(cost * 2e3) / 2e3
    capacity = np.full(models, requests, dtype=np.int64)
    capacity[:2] = requests // 4
    floor = float(quality[:, 0].mean() + 0.5 * (quality.max(axis=1).mean() - quality[:, 0].mean()))
    names = tuple(f"m{j}" for j in range(models))
    return RoutingProblem(quality, cost, np.ones((requests, models), bool), capacity, QualityFloor(floor), names)


@pytest.mark.parametrize(("requests", "models", "percent"), [(100, 5, 0.5), (1_000, 10, 0.05), (10_000, 10, 0.005)])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_gap_is_as_small_as_was_promised(requests: int, models: int, percent: float, seed: int) -> None:
    problem = draw(requests, models, seed)
    answer = DualOptimizer().solve(problem)
    assert 100 * answer.gap <= percent
    budget = replace(problem, policy=Budget(answer.cost_usd))
    assert 100 * DualOptimizer().solve(budget).gap <= percent


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ties", [False, True])
def test_caps_alone_are_solved_to_the_optimum_that_or_tools_proves(seed: int, ties: bool) -> None:
    problem = replace(draw(60, 5, seed, ties), policy=QualityPrice(0.0001 * (1 + seed % 4)))
    mine, proved = DualOptimizer().solve(problem), ExactOptimizer().solve(problem)
    assert net(problem, mine.model_index) == pytest.approx(net(problem, proved.model_index), abs=1e-8)
    assert mine.status is SolutionStatus.OPTIMAL


def net(problem: RoutingProblem, choice: np.ndarray) -> float:
    rows = np.arange(len(choice))
    assert isinstance(problem.policy, QualityPrice)
    worth = problem.policy.usd_per_quality * problem.quality[rows, choice]
    return float((problem.cost_usd[rows, choice] - worth).sum())


@pytest.mark.parametrize("seed", range(20))
def test_repairing_caps_from_the_cheapest_models_costs_the_least_possible(seed: int) -> None:
    generator = np.random.default_rng(seed)
    costs = np.round(generator.random((4, 30)) * 10)
    program = LinearProgram(costs, None, 0.0, None, *count_limits(30, np.array([10, 9, 8, 5], dtype=np.int64), ()))
    repaired = repair_caps(program, costs, costs.argmin(axis=0))
    assert (program.count_slack(repaired) >= 0).all()
    assert program.objective_of(repaired) == pytest.approx(program.objective_of(solve_transport(program)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["floor", "budget"])
def test_small_answers_are_within_two_per_cent_of_the_proved_optimum(seed: int, kind: str) -> None:
    problem = draw(40, 4, seed)
    if kind == "budget":
        problem = replace(problem, policy=Budget(DualOptimizer().solve(problem).cost_usd * 1.05))
    mine, proved = DualOptimizer().solve(problem), ExactOptimizer(time_limit_s=20).solve(problem)
    if kind == "floor":
        assert proved.cost_usd - 1e-9 <= mine.cost_usd <= 1.02 * proved.cost_usd
        assert mine.lower_bound_usd <= proved.cost_usd + 1e-9
    else:
        assert proved.quality + 1e-9 >= mine.quality >= 0.98 * proved.quality


@pytest.mark.parametrize("share", [0.97, 0.995, 1.0])
def test_a_floor_close_to_what_is_attainable_is_kept_without_waste(share: float) -> None:
    problem = draw(200, 6, 3)
    most = DualOptimizer().solve(replace(problem, policy=QualityFloor(1.0, "best_effort"))).quality
    answer = DualOptimizer().solve(replace(problem, policy=QualityFloor(share * most)))
    assert answer.quality >= share * most - 1e-9
    assert answer.gap <= 0.02


@pytest.mark.parametrize("policy", [QualityFloor(0.6), Budget(0.5)])
def test_deciding_jointly_is_never_worse_than_one_by_one(policy: Policy) -> None:
    problem = replace(draw(300, 5, 4), policy=policy)
    mine, theirs = DualOptimizer().solve(problem), GreedyOptimizer().solve(problem)
    if isinstance(policy, QualityFloor):
        assert mine.cost_usd < 0.95 * theirs.cost_usd
    else:
        assert mine.quality > theirs.quality


def test_the_price_of_a_budget_that_does_not_bind_supports_the_best_choice() -> None:
    problem = replace(draw(50, 4, 1), capacity=np.full(4, 50, dtype=np.int64), policy=Budget(1e6))
    answer = DualOptimizer().solve(problem)
    assert answer.quality == pytest.approx(problem.quality.max(axis=1).mean())
    assert np.isfinite(answer.prices.quality)
    alone = (problem.cost_usd - (answer.prices.quality * 1.000001) * problem.quality).argmin(axis=1)
    assert (alone == answer.model_index).all()


def draw_clustered(seed: int) -> RoutingProblem:
    """100 x 5 like forecasts of real questions: models nearly alike on most of them, prices a hundredfold apart."""
    generator = np.random.default_rng(seed)
    usd = np.array([1e-5, 5e-5, 1.5e-4, 1e-3, 3e-3])
    common = generator.choice([-1.0, 0.5, 2.0], (100, 1)) + generator.normal(0, 0.5, (100, 1))
    quality = 1 / (1 + np.exp(-common - np.array([0.0, 0.3, 0.5, 0.9, 1.2]) - generator.normal(0, 0.3, (100, 5))))
    cost = usd * np.exp(generator.normal(0, 0.6, (100, 1)))
    capacity = np.array([100, 30, 100, 20, 10], dtype=np.int64)
    floor = float(quality[:, 0].mean() + 0.5 * (quality[:, 4].mean() - quality[:, 0].mean()))
    return RoutingProblem(quality, cost, np.ones((100, 5), bool), capacity, QualityFloor(floor), tuple("abcde"))


@pytest.mark.parametrize("seed", range(8))
def test_a_hundred_requests_are_proved_to_the_optimum_that_highs_finds(seed: int) -> None:
    problem = draw_clustered(seed)
    answer, (least_usd, _) = AutoOptimizer().solve(problem), solve_with_highs(problem)
    assert answer.status is SolutionStatus.OPTIMAL
    assert answer.cost_usd == pytest.approx(least_usd, rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_is_that_of_the_linear_relaxation(seed: int) -> None:
    problem = draw(300, 6, seed)
    relaxed_usd, _ = solve_with_highs(problem, whole=False)
    assert DualOptimizer().solve(problem).lower_bound_usd == pytest.approx(relaxed_usd, rel=2e-4)
