"""Shards that lie in memory. Tasks cross a pickle, as they do on their way to another process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

from eccos_core.domain import RoutingProblem
from eccos_core.optimizer.sharded import ShardArrays, ShardedSolution, solve_shards


class MemoryShards:
    """A routing problem, cut into shards of `rows` requests."""

    def __init__(self, problem: RoutingProblem, rows: int) -> None:
        self.models, self.requests = problem.models, len(problem.quality)
        asked = problem.min_quality
        self.shards = [
            ShardArrays(
                index,
                start,
                problem.quality[start : start + rows].astype(np.float32),
                problem.cost_usd[start : start + rows].astype(np.float32),
                problem.eligible[start : start + rows],
                None if asked is None else asked[start : start + rows].astype(np.float32),
            )
            for index, start in enumerate(range(0, self.requests, rows))
        ]
        self.passes = 0

    def map(self, task: Any) -> Iterator[Any]:
        """Run a task on every shard."""
        self.passes += 1
        sent = pickle.dumps(task)
        for shard in self.shards:
            yield pickle.loads(pickle.dumps(pickle.loads(sent).run(shard)))


def solve_in_shards(problem: RoutingProblem, rows: int, **settings: Any) -> tuple[ShardedSolution, np.ndarray]:
    """Solve a problem in shards. Returns the answer and the models (R,)."""
    shards = MemoryShards(problem, rows)
    answer = solve_shards(shards, problem.policy, lambda kinds, counts: (problem.capacity, problem.groups), **settings)
    return answer, np.concatenate([answer.rule.choose(shard) for shard in shards.shards])
