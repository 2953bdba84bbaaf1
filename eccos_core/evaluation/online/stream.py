"""The questions that an online policy meets one by one, and what a policy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray, OutcomeTable
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.prices import read_prices
from eccos_core.protocols import Encoder

USUAL_OUTPUT_TOKENS = 200.0  # of a model that nobody has called yet
UNKNOWN_USD = 0.01  # of a call of a model without a price that nobody has called yet


@dataclass(frozen=True, slots=True, eq=False)
class OnlineStream:
    """N questions with the outcomes of M models, in the order of the table.

    vectors (N, D). quality (N, M) and cost_usd (N, M): NaN where there is no outcome, see `known` (N, M).
    list_price_usd (N, M): what a call costs by the price list with 200 output tokens. It is known before any call.
    """

    table: OutcomeTable
    vectors: Float32Array
    quality: FloatArray
    cost_usd: FloatArray
    known: BoolArray
    list_price_usd: FloatArray
    usd_per_quality: float

    @classmethod
    def of(cls, table: OutcomeTable, vectors: Float32Array, prices: PriceTable, usd_per_quality: float) -> OnlineStream:
        """Build the stream of a table whose every question has an outcome."""
        known = ~np.isnan(table.quality)
        tokens = filled_input_tokens(table)
        listed = tokens * prices.usd_per_input_token + USUAL_OUTPUT_TOKENS * np.where(
            prices.output_known, prices.usd_per_output_token, 0.0
        )
        return cls(
            table=table,
            vectors=vectors,
            quality=table.quality,
            cost_usd=np.where(known, prices.recorded_cost_usd(table), np.nan),
            known=known,
            list_price_usd=np.where(np.isnan(prices.typical_cost_usd), np.maximum(listed, 1e-12), UNKNOWN_USD),
            usd_per_quality=usd_per_quality,
        )

    @property
    def reward(self) -> FloatArray:
        """Quality - cost / usd_per_quality, (N, M), NaN without an outcome."""
        return self.quality - self.cost_usd / self.usd_per_quality

    def mean_reward(self, rows: IntArray) -> FloatArray:
        """Return each model's mean reward (M,) over its outcomes among these rows, -inf for a model without any."""
        known = self.known[rows]
        counts = known.sum(axis=0)
        sums = np.where(known, self.reward[rows], 0.0).sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)


class OnlinePolicy(Protocol):
    """Chooses a model for one question after the other, and learns from what the chosen model did."""

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Choose one of the allowed models (M,) for a question of the stream."""
        ...

    def learn(self, row: int, model: int) -> None:
        """Take in the outcome of one model for a question."""
        ...


#: Makes a policy for a stream, from the rows (W,) whose outcomes of all models are known at the start, and a seed.
PolicyFactory: TypeAlias = Callable[[OnlineStream, IntArray, int], OnlinePolicy]


def read_stream(data: Path, prices: Path | None, encoder: Encoder, usd_per_quality: float) -> OnlineStream:
    """Read an outcomes file and its prices, and encode the questions. Questions without any outcome are left out.

    Raises `DataError` for a faulty file, and `InputError` for a model without a price and without recorded costs.
    """
    table = read_outcomes(data)
    table = table.rows(np.flatnonzero((~np.isnan(table.quality)).any(axis=1)))
    price_table = PriceTable.of(read_prices(prices) if prices is not None else {}, table)
    return OnlineStream.of(table, encoder.encode(table.queries), price_table, usd_per_quality)
