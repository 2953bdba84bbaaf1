"""Limits that hardly bind, bind to the last bit, or contradict each other, and prices of every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memory_shards import solve_in_shards

from eccos_core.domain import Budget, GroupShare, Policy, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.optimizer import AutoOptimizer, DualOptimizer, ExactOptimizer, group_shares, what_if
from eccos_core.optimizer.linear_program import LinearProgram
from eccos_core.optimizer.min_cost_flow import repair_caps
from eccos_core.protocols import Optimizer

OPTIMIZERS: tuple[Optimizer, ...] = (AutoOptimizer(), DualOptimizer(), ExactOptimizer(), ExactOptimizer("glop"))


def draw(requests: int, models: int, seed: int, cap_share: float = 1.0) -> RoutingProblem:
    """Dearer is better on the whole. Every model is capped at `cap_share` of the requests."""
    generator = np.random.default_rng(seed)
    strength = np.sort(generator.normal(1, 1.2, models))
    difficulty = generator.normal(0.5, 1.3, (requests, 1)) + generator.normal(0, 0.6, (requests, models))
    quality = 1 / (1 + np.exp(difficulty - strength))
    usd = np.sort(np.exp(generator.uniform(0, 5, models))) * 1e-6 * np.exp(generator.normal(5.5, 0.7, (requests, 1)))
    capacity = np.full(models, int(np.ceil(cap_share * requests)))
    names = tuple(f"m{j:02d}" for j in range(models))
    return RoutingProblem(quality, usd, np.ones((requests, models), bool), capacity, QualityFloor(0.5), names)


@pytest.mark.parametrize(("requests", "models", "seed"), [(30, 12, 1), (100, 8, 2), (400, 10, 3)])
@pytest.mark.parametrize("times", [1, 10, 1e6, 1e12])
def test_a_generous_budget_loses_no_quality(requests: int, models: int, seed: int, times: float) -> None:
    problem = draw(requests, models, seed, cap_share=1.5 / models)
    dearest = float(problem.cost_usd.max(axis=1).sum())
    best = AutoOptimizer().solve(replace(problem, policy=QualityPrice(1e6 * dearest))).quality
    for solver in OPTIMIZERS:
        answer = solver.solve(replace(problem, policy=Budget(times * dearest)))
        assert answer.quality == pytest.approx(best, abs=1e-12)
        assert (answer.status, answer.engine) == (SolutionStatus.OPTIMAL, "min_cost_flow")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distance", [1e-3, 1e-4, 1e-5, 1e-6])
def test_the_gap_is_small_near_the_best_attainable_quality(seed: int, distance: float) -> None:
    problem = draw(1000, 10, seed, cap_share=0.25)
    best = AutoOptimizer().solve(replace(problem, policy=QualityFloor(1.0, "best_effort"))).quality
    answer = AutoOptimizer().solve(replace(problem, policy=QualityFloor(best - distance)))
    assert answer.quality >= best - distance - 1e-9
    assert answer.gap <= 5e-4


def conflicting(requests: int, models: int, eligible_share: float) -> RoutingProblem:
    generator = np.random.default_rng(0)
    problem = draw(requests, models, 0, cap_share=0.34)
    eligible = generator.random((requests, models)) < eligible_share
    eligible[~eligible.any(axis=1)] = True
    even = np.arange(models) % 2 == 0
    groups = GroupShare("even", even, 0.6, 1.0), GroupShare("odd", ~even, 0.6, 1.0)
    return replace(problem, eligible=eligible, groups=groups)


def test_refusing_conflicting_shares_takes_no_more_steps_for_more_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    flows: list[int] = []
    original = group_shares.place_patterns

    def counted(*arguments: np.ndarray) -> tuple[int, np.ndarray]:
        flows.append(len(arguments[0]))
        return original(*arguments)

    monkeypatch.setattr(group_shares, "place_patterns", counted)
    steps = []
    for requests in (200, 20_000):
        flows.clear()
        with pytest.raises(InfeasibleError, match=r"'odd' wants at least 0\.6 .* beside 'even' 0\.4000 can be had"):
            AutoOptimizer().solve(conflicting(requests, 10, 1.1))
        steps.append(len(flows))
        assert set(flows) == {1}  # requests with the same eligible models count as one pattern
    assert steps[1] <= steps[0]


def test_shares_with_hundreds_of_eligibility_patterns_are_decided() -> None:
    problem = conflicting(1000, 12, 0.5)
    with pytest.raises(InfeasibleError, match=r"group 'odd' wants at least 0\.6 of the 1000 calls"):
        AutoOptimizer().solve(problem)
    even, odd = problem.groups
    possible = replace(problem, groups=(replace(even, at_least=0.45), replace(odd, at_least=0.45)))
    answer = AutoOptimizer().solve(possible)
    share = np.asarray(even.members)[answer.model_index].mean()
    assert 0.45 <= share <= 0.55
    assert answer.gap <= 1e-3


@pytest.mark.parametrize(("cost", "price"), [(1.0, 1.0), (1e-300, 1.0), (1e-307, 1e3), (1e-310, 1.0), (1.0, 1e306)])
def test_prices_and_costs_of_any_size_are_solved(cost: float, price: float) -> None:
    quality = np.array([[0.0, 0.5], [0.2, 0.9]])
    usd = np.array([[1.0, 2.0], [1.0, 3.0]]) * cost
    problem = RoutingProblem(quality, usd, np.ones((2, 2), bool), np.array([1, 2]), QualityPrice(price), ("a", "b"))
    for solver in OPTIMIZERS:
        answer = solver.solve(problem)
        assert answer.model_index.tolist() == [1, 1]
        assert np.isfinite([answer.cost_usd, answer.lower_bound_usd, answer.gap]).all()


def test_a_price_that_overflows_is_refused() -> None:
    with pytest.raises(InputError, match=r"usd_per_quality_point is 1e\+307, must be a number from 0 to 1e306"):
        QualityPrice(1e307)


@pytest.mark.parametrize("policy", [*map(Budget, (1.0, 1e3, 1e6)), *map(QualityPrice, (1e-6, 1e-2, 1.0, 100.0))])
def test_a_generous_budget_or_price_is_solved_by_every_engine(policy: Policy) -> None:
    generator = np.random.default_rng(0)
    cost = np.array([2e-6, 1e-5, 1e-4, 3e-4]) * np.exp(generator.normal(0, 0.3, (100, 4)))
    problem = RoutingProblem(
        generator.random((100, 4)), cost, np.ones((100, 4), bool), np.full(4, 50), policy, tuple("abcd")
    )
    answers = [solver.solve(problem) for solver in OPTIMIZERS]
    assert {answer.engine for answer in answers} == {"min_cost_flow"}
    assert len({tuple(answer.model_index) for answer in answers}) == 1


def test_the_next_point_of_a_what_if_row_is_priced_for_the_whole_batch() -> None:
    rows = what_if(draw(400, 5, 1, cap_share=0.5), np.arange(0.40, 0.56, 0.01).tolist())
    assert all(row.attained for row in rows)
    for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
        below, above = row.cost_usd - before.cost_usd, after.cost_usd - row.cost_usd
        assert 0.98 * below <= row.next_point_usd <= 1.02 * above  # the cost is convex in the floor


def test_the_engine_that_solved_a_batch_is_named() -> None:
    problem, price = draw(60, 5, 2, cap_share=0.4), QualityPrice(1e-6)
    assert AutoOptimizer().solve(problem).engine == "cp_sat"
    assert DualOptimizer().solve(problem).engine == "dual"
    assert ExactOptimizer("glop").solve(problem).engine == "glop"
    assert AutoOptimizer().solve(replace(problem, policy=price)).engine == "min_cost_flow"
    assert AutoOptimizer().solve(draw(3000, 10, 2, cap_share=0.4)).engine == "dual"


def test_a_hundred_thousand_equal_requests_move_within_the_caps_at_once() -> None:
    """One by one, each of the 100,000 moves would look at all requests: a quarter of an hour."""
    size = 200_000
    costs = np.repeat([[0.0], [1.0], [3.0]], size, axis=1)
    limits = np.array([100_000.0, 60_000.0, 50_000.0])
    program = LinearProgram(costs, None, 0.0, None, np.eye(3), limits)
    choice = repair_caps(program, costs, np.zeros(size, dtype=np.int64))
    assert np.bincount(choice, minlength=3).tolist() == [100_000, 60_000, 40_000]


@pytest.mark.parametrize("policy", [QualityFloor(0.95, "best_effort"), Budget(1e-6, "best_effort")])
def test_the_best_of_many_equal_requests_is_proved(policy: Policy) -> None:
    """A floor or budget out of reach moves to what is attainable. There, full models leave hardly a choice."""
    random = np.random.default_rng(0)
    size, models, kind = 60_000, 6, random.integers(0, 3, 60_000)
    quality = (0.8 * np.sort(random.random((3, models)), axis=1))[kind]
    cost = (10 ** np.linspace(-5, -3, models) * np.exp(random.normal(0, 0.3, (3, 1))))[kind]
    caps = np.full(models, size // 4)
    problem = RoutingProblem(quality, cost, np.ones_like(quality, dtype=bool), caps, policy, tuple("abcdef"))
    answer = AutoOptimizer().solve(problem)
    assert answer.status is SolutionStatus.BEST_EFFORT
    assert answer.gap < 1e-8
    assert (np.bincount(answer.model_index, minlength=models) <= caps).all()


def test_sixty_thousand_equal_requests_end_in_shards_too() -> None:
    size, quality = 60_000, np.repeat([[0.1, 0.3, 0.5, 0.6]], 60_000, axis=0)
    cost = np.repeat([[1e-5, 4e-5, 2e-4, 1e-3]], size, axis=0)
    caps, policy = np.full(4, size // 3), QualityFloor(0.9, "best_effort")
    problem = RoutingProblem(quality, cost, np.ones_like(quality, dtype=bool), caps, policy, tuple("abcd"))
    answer, choice = solve_in_shards(problem, 16_384)
    assert answer.quality == pytest.approx((0.3 + 0.5 + 0.6) / 3)
    assert answer.gap < 1e-4
    assert np.bincount(choice, minlength=4).tolist() == [0, size // 3, size // 3, size // 3]
