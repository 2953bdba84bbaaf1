"""The answer of one shard as Parquet: model, quality, cost and why, one row a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eccos_core.domain import FloatArray, IntArray, Prices
from eccos_core.io.optional import needs_extra
from eccos_core.optimizer.sharded import ChoiceRule, ShardArrays
from eccos_core.workflows.large_plan.store import read_arrays, read_labels, shard_writer

Reason: TypeAlias = Literal["only_model", "limits", "cheapest", "best", "price"]
REASONS: tuple[Reason, ...] = ("only_model", "limits", "cheapest", "best", "price")
ONLY_MODEL, LIMITS, CHEAPEST, BEST, PRICE = range(len(REASONS))


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """What was written of a shard: sums over its requests. `reasons` (len(REASONS),) counts them by reason."""

    requests: int
    cost_usd: float
    quality: float
    calls: tuple[int, ...]
    reasons: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WriteShard:
    """Choose the models of a shard, and write them to `path`."""

    forecast: Path
    path: Path
    index: int
    start: int
    models: tuple[str, ...]
    rule: ChoiceRule
    prices: Prices
    best_effort: bool

    def run(self) -> WrittenShard:
        """Write the shard, and return its sums. Raises `InputError` where no space is left."""
        with needs_extra("parquet", "writing a plan as Parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        shard = read_arrays(self.forecast, self.index, self.start)
        ids, familiarity = read_labels(self.forecast)
        choice = self.rule.choose(shard)
        rows = np.arange(len(choice))
        cost, quality = shard.cost_usd[rows, choice], shard.quality[rows, choice]
        reasons, runner_up = explain_choice(shard, choice, self.prices, best_effort=self.best_effort)
        table = pa.table(
            {
                "row": pa.array(self.start + rows),
                "id": pa.array(ids),
                "model": _names(choice, self.models),
                "quality": pa.array(quality),
                "cost_usd": pa.array(cost.astype(np.float64)),
                "reason": _names(reasons, REASONS),
                "runner_up": _names(runner_up, self.models),
                "familiarity": pa.array(familiarity),
            }
        )
        with shard_writer(self.path) as stream:
            pq.write_table(table, stream, compression="zstd")
        return WrittenShard(
            len(choice),
            float(cost.sum(dtype=np.float64)),
            float(quality.sum(dtype=np.float64)),
            tuple(np.bincount(choice, minlength=len(self.models)).tolist()),
            tuple(np.bincount(reasons, minlength=len(REASONS)).tolist()),
        )


def _names(index: IntArray, names: tuple[str, ...]) -> object:
    """Return names by index (r,) as a dictionary column, null where the index is -1."""
    with needs_extra("parquet", "eccos plan --output"):
        import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32), mask=index < 0), pa.array(names))


def explain_choice(
    shard: ShardArrays, choice: IntArray, prices: Prices, *, best_effort: bool
) -> tuple[npt.NDArray[np.int64], IntArray]:
    """Return a reason (r,), an index into `REASONS`, and the runner-up (r,), -1 where no other model may answer.

    - `only_model`: no other model may answer.
    - `limits`: at the prices alone another model is better. The request was moved, so that floor, budget and slots
      hold exactly, or because slots are scarce.
    - `cheapest` and `best`: the model costs the least, or is the best, of those that may answer.
    - `price`: in between. A better model costs more than its quality is worth at the price of quality.
    """
    allowed, rows = shard.allowed(best_effort=best_effort), np.arange(len(choice))
    cost = np.where(allowed, shard.cost_usd, np.inf).astype(np.float64)
    quality = np.where(allowed, shard.quality, -np.inf).astype(np.float64)
    scores: FloatArray = np.where(allowed, shard.cost_usd - prices.quality * shard.quality.astype(np.float64), np.inf)
    alone = scores.min(axis=1)
    others = scores + np.where(allowed, prices.slots, 0.0)
    others[rows, choice] = np.inf
    runner_up = np.where(np.isfinite(others.min(axis=1)), others.argmin(axis=1), -1)
    tolerance = 1e-6 * np.abs(alone) + 1e-15
    reasons = np.select(
        [
            allowed.sum(axis=1) == 1,
            scores[rows, choice] > alone + tolerance,
            cost[rows, choice] <= cost.min(axis=1),
            quality[rows, choice] >= quality.max(axis=1),
        ],
        [ONLY_MODEL, LIMITS, CHEAPEST, BEST],
        PRICE,
    )
    return reasons.astype(np.int64), runner_up.astype(np.int64)
