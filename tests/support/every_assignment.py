"""Small routing problems whose optimum is known: every assignment that is not dominated is enumerated, in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Assignment, Budget, QualityFloor, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.protocols import Optimizer

COST_STEPS = 1000  # a cost is a whole number of 0.001 USD


@dataclass(frozen=True, slots=True, eq=False)
class SmallProblem:
    """A problem whose numbers are `quality` / `quality_steps` and `cost` / COST_STEPS, both whole numbers (R, M)."""

    problem: RoutingProblem
    quality: np.ndarray
    cost: np.ndarray
    quality_steps: int

    def frontier(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (total costs, total qualities) of the assignments within caps and eligibility that none dominates."""
        capacity = np.asarray(self.problem.capacity)
        requests, models = self.quality.shape
        radix = (requests + 1) ** np.arange(models) * (capacity < requests)  # loads as one number
        cost, quality = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        loads = np.zeros((1, models), dtype=np.int64)
        for request in range(requests):
            options = np.flatnonzero(self.problem.eligible[request])
            cost = (cost[:, None] + self.cost[request, options]).ravel()
            quality = (quality[:, None] + self.quality[request, options]).ravel()
            loads = (loads[:, None, :] + np.eye(models, dtype=np.int64)[options]).reshape(-1, models)
            key = loads @ radix
            order = np.lexsort((-quality, cost, key))
            order = order[(loads[order] <= capacity).all(axis=1)]
            group = np.cumsum(np.diff(key[order], prepend=-1) != 0)
            rising = quality[order] + group * (quality.max(initial=0) + 1)  # each load's qualities above the last one's
            best_before = np.concatenate([[-1], np.maximum.accumulate(rising)[:-1]])
            kept = order[rising > best_before]
            cost, quality, loads = cost[kept], quality[kept], loads[kept]
        return cost, quality

    def optimum(self) -> tuple[int, int] | None:
        """Return (cost, quality) of an assignment that is best for the policy, None if none keeps it."""
        cost, quality = self.frontier()
        policy = self.problem.policy
        if isinstance(policy, QualityFloor):
            feasible = np.flatnonzero(quality >= (policy.alpha - 1e-9) * len(self.quality) * self.quality_steps)
            order = np.lexsort((-quality[feasible], cost[feasible]))
        else:
            assert isinstance(policy, Budget)
            feasible = np.flatnonzero(cost <= policy.usd * (1 + 1e-9) * COST_STEPS)
            order = np.lexsort((cost[feasible], -quality[feasible]))
        if not len(feasible):
            return None
        best = feasible[order[0]]
        return int(cost[best]), int(quality[best])

    def solve(self, optimizer: Optimizer) -> Assignment | InfeasibleError:
        """Return the optimizer's answer or refusal."""
        try:
            return optimizer.solve(self.problem)
        except InfeasibleError as error:
            return error

    def fault(self, answer: Assignment | InfeasibleError) -> str:
        """Return what is wrong with an answer: a limit, the bound, or the status. Empty if it is right."""
        best = self.optimum()
        if isinstance(answer, InfeasibleError):
            return "" if best is None else f"refused, but attainable: {answer}"
        if best is None:
            return f"answered with cost {answer.cost_usd} and quality {answer.quality}, but nothing is feasible"
        return self._wrong_answer(answer, best)

    def _wrong_answer(self, answer: Assignment, best: tuple[int, int]) -> str:
        rows = np.arange(len(self.quality))
        loads = np.bincount(answer.model_index, minlength=self.quality.shape[1])
        if not self.problem.eligible[rows, answer.model_index].all() or (loads > self.problem.capacity).any():
            return "passes a cap or the eligibility"
        cost = int(self.cost[rows, answer.model_index].sum())
        quality = int(self.quality[rows, answer.model_index].sum())
        least_cost, most_quality = best
        proved = answer.status is SolutionStatus.OPTIMAL
        if isinstance(self.problem.policy, Budget):
            bound = (answer.upper_bound_quality or 0.0) * len(rows) * self.quality_steps
            if cost > self.problem.policy.usd * (1 + 1e-9) * COST_STEPS:
                return f"cost {cost} passes the budget"
            if bound < most_quality * (1 - 1e-9) or (proved and quality != most_quality):
                return (
                    f"{answer.status.value} with quality {quality} and bound {bound}, but {most_quality} is attainable"
                )
            return ""
        if quality < (self.problem.policy.alpha - 1e-9) * len(rows) * self.quality_steps:  # type: ignore[union-attr]
            return f"quality {quality} misses the floor"
        bound = answer.lower_bound_usd * COST_STEPS
        if bound > least_cost * (1 + 1e-9) or (proved and cost != least_cost):
            return f"{answer.status.value} with cost {cost} and bound {bound}, but {least_cost} is attainable"
        return ""


def draw_small_problem(seed: int) -> SmallProblem:
    """Draw 4 to 15 requests and 2 to 5 models: coarse or fine numbers, loose or tight caps, a floor or a budget."""
    generator = np.random.default_rng(seed)
    requests, models = int(generator.integers(4, 16)), int(generator.integers(2, 6))
    shape = requests, models
    steps = int(generator.choice([20, 100, 10_000]))
    quality = generator.integers(0, steps + 1, shape)
    orders = generator.choice([1.3, 2.5, 4.0])  # costs over one to four orders of magnitude
    cost = np.rint(10 ** generator.uniform(0, orders, shape)).astype(np.int64)
    eligible = generator.random(shape) < generator.choice([1.0, 0.8])
    eligible[np.arange(requests), generator.integers(0, models, requests)] = True
    witness = np.array([generator.choice(np.flatnonzero(row)) for row in eligible])  # keeps the caps
    capacity = np.full(models, requests, dtype=np.int64)
    for model in generator.choice(models, int(generator.integers(0, min(models, 3) + 1)), replace=False):
        capacity[model] = np.bincount(witness, minlength=models)[model]
    drawn = RoutingProblem(
        quality / steps, cost / COST_STEPS, eligible, capacity, QualityFloor(0.0), tuple("abcde"[:models])
    )
    small = SmallProblem(drawn, quality, cost, steps)
    costs, qualities = small.frontier()
    share = generator.choice([0.0, 1.0, -0.05, 1.05, generator.random()])  # just attainable, out of reach, between
    if generator.random() < 0.5:
        total = qualities.min() + share * np.ptp(qualities)
        policy: QualityFloor | Budget = QualityFloor(float(np.clip(total / (steps * requests), 0.0, 1.0)))
    else:
        policy = Budget(max(float((costs.min() + share * np.ptp(costs)) / COST_STEPS), 0.0))
    return replace(small, problem=replace(drawn, policy=policy))
