"""From prices to an assignment: most requests choose at the prices, the undecided ones are solved jointly.

At good prices a request whose two best models differ by much takes the better one in every good assignment. So the
shards round those. Only the requests of least margin, the core, travel. They make a problem that fits into one process,
with the floor or budget, the caps and the shares that the others leave (Balas and Zemel, "An algorithm for large
zero-one knapsack problems", 1980).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import (
    BoolArray,
    Budget,
    FloatArray,
    GroupShare,
    IntArray,
    QualityFloor,
    QualityPrice,
    RoutingProblem,
)
from eccos_core.optimizer.dual_newton import soft_shares
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram
from eccos_core.optimizer.min_cost_flow import round_shares
from eccos_core.optimizer.sharded.arrays import ShardArrays
from eccos_core.optimizer.sharded.program import ChoiceSums, ShardedProgram
from eccos_core.optimizer.validation import BUDGET_TOLERANCE, FLOOR_TOLERANCE, least_quality, most_usd


def margins(program: LinearProgram, y: FloatArray) -> FloatArray:
    """Return (r,) how much dearer the second-best model of each request is, infinite where there is one model only."""
    side, counts = (0.0, y) if program.side is None else (float(y[0]), y[1:])
    costs = program.lagrangian_costs(DualPrices(side, counts))
    if program.models == 1:
        return np.full(program.requests, np.inf)
    two = np.partition(costs, 1, axis=0)
    return np.asarray(two[1] - two[0])


@dataclass(frozen=True, slots=True, eq=False)
class FindMargins:
    """Return the least margins of a shard at the prices y (K,), at most `most` of them."""

    program: ShardedProgram
    y: FloatArray
    most: int

    def run(self, shard: ShardArrays) -> FloatArray:
        """See `ShardTask.run`."""
        return least_of(margins(self.program.of(shard), self.y), self.most)


def least_of(values: FloatArray, most: int) -> FloatArray:
    """Return the least finite values, at most `most` of them, in any order."""
    values = values[np.isfinite(values)]
    return values if len(values) <= most else np.partition(values, most - 1)[:most]


@dataclass(frozen=True, slots=True, eq=False)
class CorePart:
    """The requests of one shard that are solved jointly, `rows` (C,) of it, and the sums over all its others.

    `quality`, `cost_usd` and `allowed` are (C, M).
    """

    shard: int
    rows: IntArray
    quality: FloatArray
    cost_usd: FloatArray
    allowed: BoolArray
    rest: ChoiceSums


@dataclass(frozen=True, slots=True, eq=False)
class SplitCore:
    """Round a shard at the prices y (K,), and return the requests with a margin below `threshold`.

    Of the requests at the threshold, which may be many, at most `ties` of each request of the shard are returned.
    """

    program: ShardedProgram
    y: FloatArray
    temperature: float
    threshold: float
    ties: float

    def run(self, shard: ShardArrays) -> CorePart:
        """See `ShardTask.run`."""
        program = self.program.of(shard)
        margin = margins(program, self.y)
        core = margin < self.threshold
        at_threshold = np.flatnonzero(margin == self.threshold)
        most = math.ceil(self.ties * len(margin))
        if np.isfinite(self.threshold):
            core[at_threshold[np.linspace(0, len(at_threshold) - 1, min(most, len(at_threshold))).astype(np.int64)]] = (
                True
            )
        choice = round_shares(soft_shares(program, self.y, self.temperature))
        rows = np.flatnonzero(core)
        return CorePart(
            shard.index,
            rows,
            shard.quality[rows].astype(np.float64),
            shard.cost_usd[rows].astype(np.float64),
            shard.allowed(best_effort=self.program.best_effort)[rows],
            ChoiceSums.of(program, shard, choice, counted=~core),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RoundedChoice:
    """Round the soft choice at the prices y (K,). `core` has, by shard, requests with a model that was decided."""

    program: ShardedProgram
    y: FloatArray
    temperature: float
    core: Mapping[int, tuple[IntArray, IntArray]]

    def choose(self, shard: ShardArrays) -> IntArray:
        """See `ChoiceRule.choose`."""
        choice = round_shares(soft_shares(self.program.of(shard), self.y, self.temperature))
        if shard.index in self.core:
            rows, models = self.core[shard.index]
            choice[rows] = models
        return choice


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """The requests of all shards that are solved jointly, C of them."""

    parts: tuple[CorePart, ...]
    quality: FloatArray
    cost_usd: FloatArray
    allowed: BoolArray
    rest: ChoiceSums

    @classmethod
    def of(cls, parts: Iterable[CorePart]) -> Core:
        """Join what the shards returned."""
        every = tuple(parts)
        rest = every[0].rest
        for part in every[1:]:
            rest = rest + part.rest
        return cls(
            every,
            np.concatenate([part.quality for part in every]),
            np.concatenate([part.cost_usd for part in every]),
            np.concatenate([part.allowed for part in every]),
            rest,
        )

    def by_shard(self, choice: IntArray) -> dict[int, tuple[IntArray, IntArray]]:
        """Return an assignment (C,) of the core as rows and models, by shard."""
        edges = np.cumsum([len(part.rows) for part in self.parts])[:-1]
        return {
            part.shard: (part.rows, models)
            for part, models in zip(self.parts, np.split(choice, edges), strict=True)
            if len(part.rows)
        }

    def problem(
        self, program: ShardedProgram, capacity: IntArray, groups: Sequence[GroupShare], models: tuple[str, ...]
    ) -> RoutingProblem | None:
        """Return the problem that the other requests leave to the core. None where they leave it no solution."""
        core = len(self.quality)
        left = np.minimum(capacity, program.requests) - self.rest.loads
        policy = self._policy(program)
        shares = [self._share(group, program.requests, core) for group in groups]
        if core == 0 or policy is None or (left < 0).any() or any(share is None for share in shares):
            return None
        problem = RoutingProblem(
            quality=self.quality,
            cost_usd=self.cost_usd,
            eligible=self.allowed,
            capacity=left.astype(np.int64),
            policy=policy,
            models=models,
            groups=tuple(share for share in shares if share is not None),
        )
        if not program.side_only:
            return problem
        cost = 1.0 - self.quality if isinstance(program.policy, QualityFloor) else self.cost_usd
        return replace(problem, cost_usd=cost, policy=QualityPrice(0.0))

    def _policy(self, program: ShardedProgram) -> QualityFloor | Budget | QualityPrice | None:
        core, policy = len(self.quality), program.policy
        if program.side_only:
            return QualityPrice(0.0)
        match policy:
            case QualityFloor(alpha=alpha):
                wanted = (program.requests * least_quality(alpha) - self.rest.quality) / max(core, 1) + FLOOR_TOLERANCE
                return None if wanted > 1 + FLOOR_TOLERANCE else QualityFloor(min(max(wanted, 0.0), 1.0))
            case Budget(usd=usd):
                left = (most_usd(usd) - self.rest.cost_usd) / (1 + BUDGET_TOLERANCE)
                return None if left < 0 else Budget(left)
            case QualityPrice():
                return QualityPrice(policy.usd_per_quality_point)

    def _share(self, group: GroupShare, requests: int, core: int) -> GroupShare | None:
        """Return the share of the core that keeps a share of the batch. None if the others broke it already."""
        members = np.asarray(group.members, dtype=np.bool_)
        used = int(self.rest.loads[members].sum())
        most = math.floor(group.at_most * requests + 1e-9) - used
        least = math.ceil(group.at_least * requests - 1e-9) - used
        if most < 0 or least > core:
            return None
        return GroupShare(group.name, members, max(least, 0) / max(core, 1), min(most, core) / max(core, 1))
