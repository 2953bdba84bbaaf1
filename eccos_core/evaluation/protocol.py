"""What takes part in a replay: a router is fitted on the training rows and then answers for questions it never saw.

A router gets a `TrainSplit`, with outcomes, and returns a function that gets an `EvaluationSplit`, without any. So no
router can look at the truth that judges it. `oracle` is not such a router: `replay.py` computes it from the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, OutcomeTable
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.recorded_cost import PriceTable

EncoderChoice: TypeAlias = Literal["text", "static", "none"]  # which encoder's vectors a contender reads


@dataclass(frozen=True, slots=True, eq=False)
class TrainSplit:
    """Training rows: table of N questions, vectors (N, D) of the encoder of that name ("" where none is read), cost_usd
    (N, M) of the recorded answers, and prices."""

    table: OutcomeTable
    vectors: Float32Array
    cost_usd: FloatArray
    price_table: PriceTable
    encoder: str = ""

    @property
    def known(self) -> BoolArray:
        """(N, M) where an outcome was recorded."""
        return ~np.isnan(self.table.quality)

    @property
    def mean_quality(self) -> FloatArray:
        """(M,) mean recorded quality, 0 for a model without outcomes."""
        return column_means(self.table.quality)

    @property
    def filled_quality(self) -> FloatArray:
        """(N, M) recorded quality, a model's mean where it is missing."""
        return np.where(self.known, self.table.quality, self.mean_quality)

    @property
    def filled_output_tokens(self) -> FloatArray:
        """(N, M) recorded output tokens, a model's mean where they are missing, 0 for a model without any."""
        return np.where(
            np.isnan(self.table.output_tokens), self.price_table.typical_output_tokens, self.table.output_tokens
        )


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationSplit:
    """Test questions without their outcomes: queries (R), vectors (R, D), input_tokens (R, M), eligible (R, M), and
    prices."""

    queries: tuple[str, ...]
    vectors: Float32Array
    input_tokens: FloatArray
    eligible: BoolArray
    price_table: PriceTable

    def __len__(self) -> int:
        return len(self.input_tokens)

    def rows(self, start: int, stop: int) -> EvaluationSplit:
        """Some of the questions, in order."""
        chosen = slice(start, stop)
        return EvaluationSplit(
            self.queries[chosen],
            self.vectors[chosen],
            self.input_tokens[chosen],
            self.eligible[chosen],
            self.price_table,
        )

    def cost_usd(self, output_tokens: FloatArray) -> FloatArray:
        """(R, M) USD forecast for these output tokens (R, M)."""
        return self.price_table.cost_usd(self.input_tokens, output_tokens)


RouterAnswer: TypeAlias = Forecast | Choices  # a forecast is priced and swept; a rule of its own gives choices (S, R)
AnswerFunction: TypeAlias = Callable[[EvaluationSplit], RouterAnswer]


class ReplayRouter(Protocol):
    """A router under evaluation."""

    @property
    def name(self) -> str:
        """Its key under `routers` in the report."""
        ...

    @property
    def reads(self) -> EncoderChoice:
        """Which vectors it wants."""
        ...

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit on the training rows. The same lesson gives the same answers."""
        ...


@dataclass(frozen=True, slots=True)
class PriorReplayRouter:
    """No text at all: each model's mean quality and mean output tokens; only the question's length is known."""

    name: str = "prior"
    reads: EncoderChoice = "none"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Means over the training rows."""
        quality = train_split.mean_quality
        error = np.sqrt(quality * (1 - quality) / np.maximum(train_split.known.sum(axis=0), 1))
        high = high_output_tokens(train_split)

        def answer(held_out: EvaluationSplit) -> Forecast:
            return forecast_of(
                train_split,
                quality,
                train_split.price_table.typical_output_tokens,
                len(held_out),
                se=error,
                high=high,
            )

        return answer


def forecast_of(
    train_split: TrainSplit,
    quality: FloatArray,
    output_tokens: FloatArray,
    rows: int,
    *,
    se: FloatArray | None = None,
    high: FloatArray | None = None,
) -> Forecast:
    """A forecast of `rows` rows from arrays that are (R, M) or (M,): clipped to what is possible.

    Baselines that know no uncertainty get the standard error of a coin and the models' own 0.9 quantile of length.
    """
    shape = (rows, len(train_split.table.models))
    clipped = np.broadcast_to(np.clip(quality, 0.0, 1.0), shape)
    return Forecast(
        models=train_split.table.models,
        quality=clipped,
        quality_se=np.broadcast_to(np.sqrt(clipped * (1 - clipped)) if se is None else se, shape),
        output_tokens=np.broadcast_to(np.maximum(output_tokens, 0.0), shape),
        output_tokens_high=np.broadcast_to(high_output_tokens(train_split) if high is None else high, shape),
        familiarity=np.zeros(rows),
    )


def column_means(values: FloatArray) -> FloatArray:
    """(M,) means of the cells that are not NaN; 0 for a column without any."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def high_output_tokens(train_split: TrainSplit) -> FloatArray:
    """(M,) the 0.9 quantile of each model's known output tokens; 0 for a model without any."""
    columns = train_split.table.output_tokens.T
    return np.array([np.quantile(c[~np.isnan(c)], 0.9) if (~np.isnan(c)).any() else 0.0 for c in columns])
