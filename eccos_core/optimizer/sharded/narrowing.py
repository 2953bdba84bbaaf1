"""Where a floor or budget is so tight that few choices are left, leave out the others before the prices are found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.optimizer.linear_program import ROUNDING
from eccos_core.optimizer.sharded.arrays import ShardArrays
from eccos_core.optimizer.sharded.program import Narrowing, ShardedProgram, side_reduced_costs


@dataclass(frozen=True, slots=True, eq=False)
class MeasureNarrowing:
    """Return the sums of |change of objective| and of reduced cost, over the choices that a narrowing leaves."""

    program: ShardedProgram
    narrowing: Narrowing

    def run(self, shard: ShardArrays) -> tuple[float, float]:
        """See `ShardTask.run`."""
        program = self.program.of(shard)
        reduced = side_reduced_costs(program, self.narrowing.counts)
        fitting = reduced <= self.narrowing.room
        best = reduced.argmin(axis=0)
        change = np.abs(program.objective - program.objective[best, np.arange(program.requests)])
        return float(change[fitting].sum()), float(reduced[fitting].sum())


def narrow(program: ShardedProgram, counts: FloatArray, bound: float) -> Narrowing:
    """Return which choices can be in a feasible assignment.

    The reduced costs of a feasible assignment add up to at most what the limit leaves. So each choice must fit into
    that. `counts` (K,) are prices at which no assignment has less than `bound` of the side constraint.
    """
    limit = program.side_limit
    assert limit is not None
    return Narrowing(counts, limit - bound + ROUNDING * abs(limit))
