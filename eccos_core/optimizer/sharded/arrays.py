"""What one shard of a large batch holds, and what runs over all shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, QualityPrice, RoutingProblem
from eccos_core.optimizer.validation import FLOOR_TOLERANCE, check

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class ShardArrays:
    """The r requests of one shard, number `index` of the batch. `start` is the place of its first request in the batch.

    `quality` and `cost_usd` (r, M), `eligible` (r, M) bool, and `min_quality` (r,) with 0 where a request asks for
    none, or None where no request of the shard does.
    """

    index: int
    start: int
    quality: Float32Array
    cost_usd: Float32Array
    eligible: BoolArray
    min_quality: Float32Array | None = None

    def check(self, models: tuple[str, ...]) -> None:
        """Raise `InputError` for numbers that cannot be right, as every optimizer does."""
        capacity = np.full(len(models), len(self.quality), dtype=np.int64)
        quality, cost = self.quality.astype(np.float64), self.cost_usd.astype(np.float64)
        check(RoutingProblem(quality, cost, self.eligible, capacity, QualityPrice(0.0), models))

    def best_eligible(self) -> FloatArray:
        """Return (r,) the best quality of the eligible models of each request."""
        return np.asarray(np.where(self.eligible, self.quality, -1.0).max(axis=1), dtype=np.float64)

    def allowed(self, *, best_effort: bool) -> BoolArray:
        """Return the eligible models that reach the request's `min_quality`, (r, M).

        With `best_effort` a request that asks for more than its models reach may use the best of them.
        """
        if self.min_quality is None:
            return self.eligible
        asked = self.min_quality.astype(np.float64)
        if best_effort:
            asked = np.minimum(asked, self.best_eligible())
        allowed: BoolArray = self.eligible & (self.quality >= asked[:, None] - FLOOR_TOLERANCE)
        return allowed


class ShardTask(Protocol[Result_co]):
    """What is done with each shard. It goes to other processes and machines, so it is a value that can be sent."""

    def run(self, shard: ShardArrays) -> Result_co:
        """Work on one shard."""
        ...


class Shards(Protocol):
    """All shards of a batch, wherever they are. Each pass sends one task to every shard."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the M models."""
        ...

    @property
    def requests(self) -> int:
        """R, the number of requests in all shards."""
        ...

    def map(self, task: ShardTask[Result]) -> Iterator[Result]:
        """Run a task on every shard, and return the results in the order of the shards."""
        ...
