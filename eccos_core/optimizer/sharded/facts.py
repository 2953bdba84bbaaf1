"""The first pass over the shards: what the search for prices is scaled by, where it starts, and who may use what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, IntArray, Policy
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.canonical import distinct_patterns, policy_terms
from eccos_core.optimizer.sharded.arrays import ShardArrays
from eccos_core.optimizer.validation import unreachable_error

_SEED = 20_261_127


@dataclass(frozen=True, slots=True, eq=False)
class _Unreachable:
    """The first request whose models do not reach its `min_quality`, and how many there are."""

    row: int
    wanted: float
    model: int
    best: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class ShardFacts:
    """What `Describe` finds in one shard of r requests.

    `most_cost_usd`, `cost_spread_usd` and `quality_spread` are the largest of any request. The sums are over all pairs.
    `worst_cost_usd` and `least_quality` are sums over requests, of the dearest and the worst model. `cheapest_usd` is
    what the requests cost at least. `sample` holds some requests.
    """

    requests: int
    most_cost_usd: float
    cost_spread_usd: float
    quality_spread: float
    cost_sum_usd: float
    quality_sum: float
    worst_cost_usd: float
    least_quality: float
    cheapest_usd: float
    patterns: BoolArray
    sizes: IntArray
    sample: ShardArrays
    unreachable: _Unreachable | None


@dataclass(frozen=True, slots=True, eq=False)
class Describe:
    """Check the numbers of a shard, and describe them. `sample_share` of its requests are returned."""

    models: tuple[str, ...]
    sample_share: float

    def run(self, shard: ShardArrays) -> ShardFacts:
        """See `ShardTask.run`."""
        shard.check(self.models)
        asked = shard.allowed(best_effort=False)
        unreachable = None if asked.any(axis=1).all() else _find_unreachable(shard, asked)
        allowed = asked if unreachable is None else shard.allowed(best_effort=True)
        cost = shard.cost_usd.astype(np.float64)
        patterns, sizes = distinct_patterns(allowed)
        return ShardFacts(
            requests=len(cost),
            most_cost_usd=float(cost.max()),
            cost_spread_usd=float(np.ptp(cost, axis=1).max()),
            quality_spread=float(np.ptp(shard.quality, axis=1).max()),
            cost_sum_usd=float(cost.sum()),
            quality_sum=float(shard.quality.sum(dtype=np.float64)),
            worst_cost_usd=float(cost.max(axis=1).sum()),
            least_quality=float(shard.quality.min(axis=1).sum(dtype=np.float64)),
            cheapest_usd=float(np.where(allowed, cost, np.inf).min(axis=1).sum()),
            patterns=patterns,
            sizes=sizes,
            sample=self._sample(shard),
            unreachable=unreachable,
        )

    def _sample(self, shard: ShardArrays) -> ShardArrays:
        rows = len(shard.quality)
        generator = np.random.default_rng([_SEED, shard.index])
        count = min(rows, int(np.ceil(rows * self.sample_share)))
        some = np.sort(generator.choice(rows, count, replace=False))
        asked = None if shard.min_quality is None else shard.min_quality[some]
        return ShardArrays(
            shard.index, shard.start, shard.quality[some], shard.cost_usd[some], shard.eligible[some], asked
        )


def _find_unreachable(shard: ShardArrays, allowed: BoolArray) -> _Unreachable:
    assert shard.min_quality is not None
    rows = np.flatnonzero(~allowed.any(axis=1))
    first = int(rows[0])
    best = np.where(shard.eligible[first], shard.quality[first], -1.0)
    model = int(best.argmax())
    return _Unreachable(shard.start + first, float(shard.min_quality[first]), model, float(best[model]), len(rows))


@dataclass(frozen=True, slots=True, eq=False)
class BatchFacts:
    """The facts of all shards together. `sample` holds some requests of every shard.

    `unreachable` is the error for requests whose models do not reach their `min_quality`.
    """

    requests: int
    most_cost_usd: float
    cost_spread_usd: float
    quality_spread: float
    cost_mean_usd: float
    quality_mean: float
    worst_cost_usd: float
    least_quality: float
    cheapest_usd: float
    patterns: BoolArray
    sizes: IntArray
    sample: ShardArrays
    unreachable: InfeasibleError | None

    @classmethod
    def of(cls, shards: Iterable[ShardFacts], models: tuple[str, ...]) -> BatchFacts:
        """Join the facts of shards."""
        parts = list(shards)
        unreachable = [part.unreachable for part in parts if part.unreachable is not None]
        error = None
        if unreachable:
            first, others = unreachable[0], sum(each.count for each in unreachable) - 1
            error = unreachable_error(first.row, first.wanted, models[first.model], first.best, others)
        requests = sum(part.requests for part in parts)
        pairs = requests * len(models)
        every = np.concatenate([np.packbits(part.patterns, axis=1) for part in parts])
        packed, which = np.unique(every, axis=0, return_inverse=True)
        sizes = np.bincount(which.ravel(), weights=np.concatenate([part.sizes for part in parts]))
        return cls(
            requests=requests,
            most_cost_usd=max(part.most_cost_usd for part in parts),
            cost_spread_usd=max(part.cost_spread_usd for part in parts),
            quality_spread=max(part.quality_spread for part in parts),
            cost_mean_usd=sum(part.cost_sum_usd for part in parts) / pairs,
            quality_mean=sum(part.quality_sum for part in parts) / pairs,
            worst_cost_usd=sum(part.worst_cost_usd for part in parts),
            least_quality=sum(part.least_quality for part in parts),
            cheapest_usd=sum(part.cheapest_usd for part in parts),
            patterns=np.unpackbits(packed, axis=1, count=len(models)).astype(np.bool_),
            sizes=sizes.astype(np.int64),
            sample=_join([part.sample for part in parts]),
            unreachable=error,
        )

    @property
    def usd_unit(self) -> float:
        """What costs are scaled by: the dearest call."""
        return self.most_cost_usd if self.most_cost_usd > 0 else 1.0

    def _terms(self, policy: Policy, usd_unit: float, quality: float, cost_usd: float) -> tuple[float, float]:
        """Return objective and side of a policy at one quality and cost."""
        one = np.array([quality]), np.array([cost_usd / usd_unit])
        objective, side, _ = policy_terms(policy, *one, self.requests, usd_unit)
        return float(objective[0]), 0.0 if side is None else float(side[0])

    def spreads(self, policy: Policy, usd_unit: float, *, side_only: bool) -> tuple[float, float]:
        """Return the largest differences of objective and of side between two models of one request, at most."""
        objective, side = self._terms(policy, usd_unit, -self.quality_spread, self.cost_spread_usd)
        return (abs(side), 0.0) if side_only else (abs(objective), abs(side))

    def size(self, policy: Policy, usd_unit: float, *, side_only: bool) -> float:
        """Return the mean absolute objective times the requests, at most."""
        objective, side = self._terms(policy, usd_unit, -self.quality_mean, self.cost_mean_usd)
        return max(abs(side if side_only else objective) * self.requests, 1e-300)

    def worst_objective(self, policy: Policy, usd_unit: float, *, side_only: bool) -> float:
        """Return an objective that no assignment exceeds."""
        objective, side = self._terms(policy, usd_unit, self.least_quality, self.worst_cost_usd)
        return side if side_only else objective


def _join(parts: list[ShardArrays]) -> ShardArrays:
    asked = None
    if any(part.min_quality is not None for part in parts):
        asked = np.concatenate(
            [
                np.zeros(len(part.quality), dtype=np.float32) if part.min_quality is None else part.min_quality
                for part in parts
            ]
        )
    return ShardArrays(
        0,
        0,
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.cost_usd for part in parts]),
        np.concatenate([part.eligible for part in parts]),
        asked,
    )
