"""The program of a batch in shards: small enough to send, it makes the rows of each shard where the shard is."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, Policy
from eccos_core.optimizer.canonical import policy_terms
from eccos_core.optimizer.dual_newton import DualSums, SmoothedDual, sum_dual
from eccos_core.optimizer.linear_program import ROUNDING, DualPrices, LinearProgram
from eccos_core.optimizer.sharded.arrays import ShardArrays, Shards
from eccos_core.optimizer.sharded.facts import BatchFacts


@dataclass(frozen=True, slots=True, eq=False)
class Narrowing:
    """Which choices a tight floor or budget leaves: those with a reduced cost of at most `room`.

    Reduced costs are those of the side constraint alone, at the prices `counts` (K,) of the count rows.
    """

    counts: FloatArray
    room: float


@dataclass(frozen=True, slots=True, eq=False)
class ShardedProgram:
    """A `LinearProgram` whose requests are in shards.

    `usd_unit` scales costs, `requests` is R, and `count_rows` (K, M) and `count_limits` (K,) hold for the whole batch.
    `side_only` takes the side constraint as the objective. `best_effort` says that requests may ask for more quality
    than their models reach.
    """

    policy: Policy
    usd_unit: float
    requests: int
    count_rows: FloatArray
    count_limits: FloatArray
    side_only: bool = False
    best_effort: bool = False
    narrowing: Narrowing | None = None

    def of(self, shard: ShardArrays) -> LinearProgram:
        """Return the requests of a shard as a program. Its limits are those of the whole batch."""
        quality = np.ascontiguousarray(shard.quality.T, dtype=np.float64)
        cost = np.ascontiguousarray(shard.cost_usd.T, dtype=np.float64) / self.usd_unit
        objective, side, limit = policy_terms(self.policy, quality, cost, self.requests, self.usd_unit)
        allowed = shard.allowed(best_effort=self.best_effort).T
        program = LinearProgram(
            objective,
            side,
            limit,
            None if allowed.all() else np.ascontiguousarray(allowed),
            self.count_rows,
            self.count_limits,
        )
        if self.side_only:
            assert side is not None
            return program.without_side(side)
        return program if self.narrowing is None else _narrow(program, self.narrowing)

    @property
    def has_side(self) -> bool:
        """Whether there is a side constraint: a floor or a budget."""
        return self.side_limit is not None and not self.side_only

    @property
    def side_limit(self) -> float | None:
        """The limit of the floor or budget, None where the policy has neither."""
        nothing = np.zeros((1, 0))
        _, side, limit = policy_terms(self.policy, nothing, nothing, self.requests, self.usd_unit)
        return None if side is None else limit

    @property
    def coupling_limits(self) -> FloatArray:
        """The limit of the side constraint, if there is one, and those of the counts."""
        return np.concatenate([[self.side_limit] if self.has_side else [], self.count_limits]).astype(np.float64)

    def rest_at(self, prices: DualPrices) -> float:
        """Return what the limits take from the sum of the least Lagrangian costs at these prices."""
        side = prices.side * (self.side_limit or 0.0) if self.has_side else 0.0
        return side + float(prices.counts @ self.count_limits)


def side_reduced_costs(program: LinearProgram, counts: FloatArray) -> FloatArray:
    """Return (M, r) reduced costs of the side constraint alone, infinite where not allowed."""
    assert program.side is not None
    costs = program.without_side(program.side).lagrangian_costs(DualPrices(0.0, counts))
    return np.asarray(costs - costs.min(axis=0))


def _narrow(program: LinearProgram, narrowing: Narrowing) -> LinearProgram:
    fitting = side_reduced_costs(program, narrowing.counts) <= narrowing.room
    return replace(program, allowed=fitting)


@dataclass(frozen=True, slots=True, eq=False)
class SumDual:
    """Add up the smoothed dual over a shard, at the prices y (K,)."""

    program: ShardedProgram
    y: FloatArray
    temperature: float

    def run(self, shard: ShardArrays) -> DualSums:
        """See `ShardTask.run`."""
        return sum_dual(self.program.of(shard), self.y, self.temperature)


class ShardedDual(SmoothedDual):
    """The smoothed dual function of a program in shards. Each evaluation is one pass over the shards."""

    def __init__(self, shards: Shards, program: ShardedProgram, facts: BatchFacts) -> None:
        self._shards, self._program = shards, program
        self.rows, self.limits, self.has_side = program.count_rows, program.coupling_limits, program.has_side
        self.spread, self.side_spread = facts.spreads(program.policy, program.usd_unit, side_only=program.side_only)

    def sums(self, y: FloatArray, temperature: float) -> DualSums:
        """See `SmoothedDual.sums`."""
        return sum(self._shards.map(SumDual(self._program, y, temperature)), DualSums.zero(self.rows.shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceSums:
    """What an assignment of some requests adds up to.

    `least` is the sum of the least Lagrangian costs. The others are those of the assignment: `objective` and `side` in
    canonical units, `cost_usd` and `quality` as sums, and `loads` (M,).
    """

    least: float
    objective: float
    side: float
    cost_usd: float
    quality: float
    loads: IntArray

    @classmethod
    def of(
        cls,
        program: LinearProgram,
        shard: ShardArrays,
        choice: IntArray,
        least: float = 0.0,
        counted: BoolArray | None = None,
    ) -> ChoiceSums:
        """Add up an assignment (r,) of a shard, of the requests that are `counted` (r,), or of all."""
        columns = np.arange(len(choice)) if counted is None else np.flatnonzero(counted)
        chosen = choice[columns]
        return cls(
            least,
            float(program.objective[chosen, columns].sum()),
            0.0 if program.side is None else float(program.side[chosen, columns].sum()),
            float(shard.cost_usd[columns, chosen].sum(dtype=np.float64)),
            float(shard.quality[columns, chosen].sum(dtype=np.float64)),
            np.bincount(chosen, minlength=program.models).astype(np.int64),
        )

    def __add__(self, other: ChoiceSums) -> ChoiceSums:
        return ChoiceSums(
            self.least + other.least,
            self.objective + other.objective,
            self.side + other.side,
            self.cost_usd + other.cost_usd,
            self.quality + other.quality,
            self.loads + other.loads,
        )


def add_choices(parts: Iterable[ChoiceSums]) -> ChoiceSums:
    """Add up the sums of at least one part."""
    return reduce(operator.add, parts)


class ChoiceRule(Protocol):
    """Says which model answers each request of a shard. It goes to other processes, as a task does."""

    def choose(self, shard: ShardArrays) -> IntArray:
        """Return the model (r,) of each request of a shard."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ChooseAtPrices:
    """Let every request of a shard choose alone at dual prices, and add up. Ties go to the better side."""

    program: ShardedProgram
    prices: DualPrices

    def run(self, shard: ShardArrays) -> ChoiceSums:
        """See `ShardTask.run`."""
        program = self.program.of(shard)
        costs = program.lagrangian_costs(self.prices)
        least = costs.min(axis=0)
        return ChoiceSums.of(program, shard, best_of_ties(program, costs, least), float(least.sum()))

    def choose(self, shard: ShardArrays) -> IntArray:
        """See `ChoiceRule.choose`."""
        program = self.program.of(shard)
        costs = program.lagrangian_costs(self.prices)
        return best_of_ties(program, costs, costs.min(axis=0))


def best_of_ties(program: LinearProgram, costs: FloatArray, least: FloatArray) -> IntArray:
    """Return (r,) the model of least Lagrangian cost, and of equal ones that with the least side."""
    if program.side is None:
        return np.asarray(costs.argmin(axis=0), dtype=np.int64)
    tied = costs <= least + ROUNDING * np.abs(least)
    return np.asarray(np.where(tied, program.side, np.inf).argmin(axis=0), dtype=np.int64)
