"""Optimize a batch that is too large for one process, in shards."""

from eccos_core.optimizer.sharded.arrays import ShardArrays, Shards, ShardTask
from eccos_core.optimizer.sharded.program import ChoiceRule
from eccos_core.optimizer.sharded.solve import ShardedSolution, solve_shards

__all__ = ["ChoiceRule", "ShardArrays", "ShardTask", "ShardedSolution", "Shards", "solve_shards"]
