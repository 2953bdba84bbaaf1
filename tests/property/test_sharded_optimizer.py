"""A batch in shards gets the answer of one process, within the gap, and the same errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memory_shards import solve_in_shards

from eccos_core.domain import (
    Assignment,
    Budget,
    GroupShare,
    Policy,
    QualityFloor,
    QualityPrice,
    RoutingProblem,
    SolutionStatus,
)
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.optimizer import AutoOptimizer
from eccos_core.optimizer.sharded import ShardedSolution


def draw_problem(seed: int) -> RoutingProblem:
    """Floors, budgets and prices of quality, with slots, shares, `min_quality` and limits that cannot be kept."""
    random = np.random.default_rng(seed)
    requests, models = int(random.integers(50, 600)), int(random.integers(1, 7))
    ability, hard = np.sort(random.random(models)), random.random((requests, 1))
    quality = 1 / (1 + np.exp(-(4 * (ability - hard) + random.normal(0, 0.5, (requests, models)))))
    price = np.exp(random.normal(0, 1.5, models)) * 1e-5 * (1 + 3 * ability)
    cost = price * np.exp(random.normal(0, 0.5, (requests, 1)))
    if random.random() < 0.2:  # many ties
        quality, cost = np.round(quality, 1), np.broadcast_to(price, (requests, models))
    quality, cost = quality.astype(np.float32).astype(float), cost.astype(np.float32).astype(float)
    eligible = random.random((requests, models)) < (1 if random.random() < 0.5 else 0.7)
    eligible[np.arange(requests), random.integers(0, models, requests)] = True
    capacity = np.full(models, requests)
    if random.random() < 0.6:
        capacity = np.maximum(1, requests * random.dirichlet(np.ones(models)) * random.uniform(1, 2)).astype(int)
    rows = np.arange(requests)
    best, cheap = np.where(eligible, quality, -1).argmax(1), np.where(eligible, cost, np.inf).argmin(1)
    reach = random.choice([random.random(), 0.99, 1.05])
    effort = "best_effort" if random.random() < 0.2 else "error"
    low, high = quality[rows, cheap].mean(), quality[rows, best].mean()
    least, most = cost[rows, cheap].sum(), cost[rows, best].sum()
    policies: list[Policy] = [
        QualityFloor(float(np.clip(low + (high - low) * reach, 0, 1)), effort),
        Budget(float(max(0, least + (most - least) * random.choice([random.random(), 0.01, -0.05]))), effort),
        QualityPrice(float(cost.mean() * random.uniform(0.1, 10) / 10)),
    ]
    asked = None
    if random.random() < 0.15 and effort == "error":  # one process also lowers what scarce slots keep out of reach
        asked = (random.random(requests) * 0.6).astype(np.float32).astype(float)
    groups: tuple[GroupShare, ...] = ()
    if random.random() < 0.1 and models > 2:
        groups = (GroupShare("first two", np.arange(models) < 2, 0.1, 0.6),)
    return RoutingProblem(
        quality,
        cost,
        eligible,
        capacity,
        policies[seed % 3],
        tuple(f"model-{j}" for j in range(models)),
        asked,
        groups,
    )


def solve_both(problem: RoutingProblem) -> tuple[Assignment | InfeasibleError, ShardedSolution | InfeasibleError]:
    """Solve in one process and in shards, with a core that is a small part of the batch."""
    answers: list[Assignment | ShardedSolution | InfeasibleError] = []
    size = len(problem.quality)
    for solve in (
        AutoOptimizer().solve,
        lambda asked: solve_in_shards(asked, max(7, size // 5), core_requests=max(20, size // 8))[0],
    ):
        try:
            answers.append(solve(problem))
        except InfeasibleError as error:
            answers.append(error)
    return answers[0], answers[1]  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(60))
def test_shards_get_the_answer_of_one_process(seed: int) -> None:
    problem = draw_problem(seed)
    one, shards = solve_both(problem)
    if isinstance(one, InfeasibleError) or isinstance(shards, InfeasibleError):
        assert isinstance(one, InfeasibleError)
        assert isinstance(shards, InfeasibleError)
        assert (shards.constraint, shards.wanted) == (one.constraint, one.wanted)
        assert shards.attainable == pytest.approx(one.attainable, rel=1e-4)
        return
    gap = max(one.gap, shards.gap) + 1e-6
    met = shards.status is not SolutionStatus.BEST_EFFORT
    assert met == (one.status is not SolutionStatus.BEST_EFFORT)
    assert (shards.calls <= problem.capacity).all()
    assert shards.calls.sum() == len(problem.quality)
    match problem.policy:
        case QualityFloor(alpha=alpha):
            assert shards.cost_usd <= one.cost_usd * (1 + gap)
            assert shards.quality >= alpha - 1e-8 or not met
        case Budget(usd=usd):
            assert shards.quality >= one.quality * (1 - gap)
            assert shards.cost_usd <= usd * (1 + 1e-8) or not met
        case QualityPrice(usd_per_quality_point=point):
            scale = 100 * point * len(problem.quality)
            worth = [answer.cost_usd - scale * answer.quality for answer in (one, shards)]
            assert worth[1] <= worth[0] + gap * max(one.cost_usd, scale)


@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_the_certificate_holds_for_what_the_shards_choose(seed: int) -> None:
    problem = replace(draw_problem(seed), min_quality=None)
    try:
        answer, choice = solve_in_shards(problem, 40, core_requests=30)
    except InfeasibleError:
        return
    rows = np.arange(len(choice))
    assert problem.eligible[rows, choice].all()
    assert problem.cost_usd[rows, choice].sum() == pytest.approx(answer.cost_usd, rel=1e-9)
    assert problem.quality[rows, choice].mean() == pytest.approx(answer.quality, rel=1e-9)
    assert (np.bincount(choice, minlength=len(answer.calls)) == answer.calls).all()
    optimum = AutoOptimizer().solve(problem)
    assert answer.lower_bound_usd <= optimum.cost_usd * (1 + 1e-6) or isinstance(problem.policy, Budget | QualityPrice)
    if answer.upper_bound_quality is not None:
        assert answer.upper_bound_quality >= optimum.quality * (1 - 1e-9)


def test_a_hundred_thousand_requests_are_within_a_hundredth_of_a_per_cent() -> None:
    random = np.random.default_rng(0)
    size, models = 100_000, 10
    quality = 1 / (1 + np.exp(-(np.linspace(-1, 2, models) + random.normal(0, 1, (size, models)))))
    cost = 10 ** np.linspace(-5, -3, models) * np.exp(random.normal(0, 0.5, (size, 1)))
    problem = RoutingProblem(
        quality,
        cost,
        np.ones((size, models), dtype=bool),
        np.full(models, size // 5),
        QualityFloor(0.8),
        tuple(f"model-{j}" for j in range(models)),
    )
    answer, _ = solve_in_shards(problem, 16_384)
    assert answer.gap < 1e-4
    assert answer.quality >= 0.8 - 1e-8
    assert (answer.calls <= size // 5).all()


def test_numbers_that_cannot_be_right_are_named() -> None:
    problem = draw_problem(1)
    bad = problem.quality.copy()
    bad[3, 0] = 1.5
    with pytest.raises(InputError, match=r"quality of request 3 and model 'model-0' is 1.5"):
        solve_in_shards(replace(problem, quality=bad), 1_000)


def test_too_few_slots_are_the_same_error() -> None:
    problem = replace(draw_problem(1), min_quality=None)
    problem = replace(problem, capacity=np.ones_like(problem.capacity))
    with pytest.raises(InfeasibleError) as one:
        AutoOptimizer().solve(problem)
    with pytest.raises(InfeasibleError, match="free slots") as shards:
        solve_in_shards(problem, 60)
    assert str(shards.value) == str(one.value)


@pytest.mark.parametrize("policy", [QualityFloor(0.999, "best_effort"), Budget(1e-9, "best_effort")])
@pytest.mark.parametrize("kinds", [5, 3_000])
def test_a_limit_out_of_reach_leaves_a_small_gap(policy: Policy, kinds: int) -> None:
    """It moves to what is attainable, where hardly a choice is left. The prices of the core say which."""
    random = np.random.default_rng(4)
    size, models, kind = 3_000, 8, random.integers(0, kinds, 3_000)
    quality = 1 / (1 + np.exp(-4 * (np.sort(random.random(models)) - random.random((kinds, 1)))))
    quality = np.clip(quality + random.normal(0, 0.05, (kinds, models)), 0, 1)[kind].astype(np.float32).astype(float)
    cost = 10 ** np.linspace(-5, -3, models) * np.exp(random.normal(0, 0.5, (kinds, 1)))
    cost = cost[kind].astype(np.float32).astype(float)
    caps = np.full(models, size // 6)
    problem = RoutingProblem(quality, cost, np.ones_like(quality, dtype=bool), caps, policy, tuple("abcdefgh"))
    one, (shards, choice) = AutoOptimizer().solve(problem), solve_in_shards(problem, 1_000, core_requests=500)
    assert one.gap < 2e-4  # what whole requests leave open
    assert shards.gap < 1e-4
    assert shards.quality == pytest.approx(one.quality, rel=1e-4)
    assert shards.cost_usd == pytest.approx(one.cost_usd, rel=1e-4)
    if isinstance(policy, QualityFloor):
        assert max(one.lower_bound_usd, shards.lower_bound_usd) <= min(one.cost_usd, shards.cost_usd) * (1 + 1e-9)
    assert (np.bincount(choice, minlength=models) <= caps).all()
