"""Prices in words, and what if."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from eccos_core.domain import Budget, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.optimizer import DualOptimizer, explain, what_if


def problem_with_a_narrow_model() -> RoutingProblem:
    generator = np.random.default_rng(3)
    quality = np.clip(np.array([0.4, 0.75, 0.9]) + generator.normal(0, 0.08, (200, 3)), 0, 1)
    cost = np.array([0.0002, 0.002, 0.05]) * np.exp(generator.normal(0, 0.4, (200, 1)))
    capacity = np.array([200, 40, 200], dtype=np.int64)
    return RoutingProblem(
        quality, cost, np.ones((200, 3), dtype=bool), capacity, QualityFloor(0.7), ("small", "medium", "large")
    )


def test_a_binding_cap_says_what_doubling_it_saves_and_the_number_is_true() -> None:
    problem = problem_with_a_narrow_model()
    answer = DualOptimizer().solve(problem)
    (sentence,) = [line for line in explain(problem, answer) if "cap of" in line]
    stated = re.fullmatch(r"raising the cap of medium from 40 to 80 saves ([\d.e-]+) USD on this batch", sentence)
    assert stated is not None, sentence
    wider = DualOptimizer().solve(replace(problem, capacity=np.array([200, 80, 200], dtype=np.int64)))
    assert float(stated[1]) == pytest.approx(answer.cost_usd - wider.cost_usd, rel=0.02)


def test_the_floor_says_what_one_more_point_costs() -> None:
    problem = problem_with_a_narrow_model()
    answer = DualOptimizer().solve(problem)
    assert any(line.startswith("raising the floor from 0.7 to 0.71 costs") for line in explain(problem, answer))


def test_a_floor_at_its_end_says_that_it_cannot_be_raised() -> None:
    problem = problem_with_a_narrow_model()
    top = DualOptimizer().solve(replace(problem, policy=QualityFloor(1.0, "best_effort")))
    assert top.status is SolutionStatus.BEST_EFFORT
    problem = replace(problem, policy=QualityFloor(top.quality))
    lines = explain(problem, DualOptimizer().solve(problem))
    assert any("cannot be raised" in line and "out of reach" in line for line in lines)


@pytest.mark.parametrize("policy", [Budget(0.5), QualityPrice(0.0005)])
def test_budget_and_price_are_put_into_words(policy: Budget | QualityPrice) -> None:
    problem = replace(problem_with_a_narrow_model(), policy=policy)
    lines = explain(problem, DualOptimizer().solve(problem))
    assert any("points" in line for line in lines)


def test_what_if_costs_more_for_more_and_marks_what_is_out_of_reach() -> None:
    rows = what_if(problem_with_a_narrow_model(), [0.5, 0.6, 0.7, 0.99])
    costs = [row.cost_usd for row in rows]
    assert costs == sorted(costs)
    assert [row.attained for row in rows] == [True, True, True, False]
    assert "out of reach" in rows[-1].note
    assert rows[1].next_point_usd <= rows[2].next_point_usd


def test_the_prices_reproduce_the_decisions_of_nearly_all_requests() -> None:
    problem = problem_with_a_narrow_model()
    answer = DualOptimizer().solve(problem)
    alone = (problem.cost_usd - answer.prices.quality * problem.quality + answer.prices.slots).argmin(axis=1)
    assert (alone != answer.model_index).sum() <= 4  # at most M + 1 undecided requests in a basic optimum


def test_importing_needs_no_or_tools() -> None:
    script = (
        "import sys, eccos_core.optimizer;"
        "print([name for name in ('ortools', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("copies", [1, 50])
def test_requests_that_are_all_alike_are_split_between_models(copies: int) -> None:
    """Ties everywhere: only the number of calls per model matters."""
    requests = 4 * copies
    problem = RoutingProblem(
        np.tile([0.5, 1.0], (requests, 1)),
        np.tile([1.0, 2.0], (requests, 1)),
        np.ones((requests, 2), dtype=bool),
        np.array([requests, requests]),
        QualityFloor(0.75),
        ("a", "b"),
    )
    answer = DualOptimizer().solve(problem)
    assert np.bincount(answer.model_index).tolist() == [requests // 2, requests // 2]
    assert answer.gap <= 1e-4
    assert answer.prices.quality == pytest.approx(2.0, rel=1e-3)
