"""The protocol of a router under evaluation: fit on the training rows, then route questions it has never seen.

A router gets a `TrainSplit` with outcomes. It returns a function that gets an `EvaluationSplit` without any. So no
router can see the outcomes that it is scored with. `oracle` is no such router: `replay.py` computes it from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, OutcomeTable
from eccos_core.evaluation.asking import RecordedAnswers
from eccos_core.evaluation.metrics import Choices, PlanChoices
from eccos_core.evaluation.recorded_cost import PriceTable

EncoderChoice: TypeAlias = Literal["text", "static", "none"]  # which encoder's vectors a router reads


@dataclass(frozen=True, slots=True, eq=False)
class TrainSplit:
    """The training rows: N questions with outcomes of M models.

    vectors (N, D), of the encoder named `encoder` ("" for none). cost_usd (N, M): cost of the recorded answers.
    """

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
        """(N, M) recorded quality. A missing cell holds the model's mean."""
        return np.where(self.known, self.table.quality, self.mean_quality)

    @property
    def filled_output_tokens(self) -> FloatArray:
        """(N, M) recorded output tokens. A missing cell holds the model's mean, 0 for a model without any."""
        return np.where(
            np.isnan(self.table.output_tokens), self.price_table.typical_output_tokens, self.table.output_tokens
        )


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationSplit:
    """The R test questions without their outcomes: vectors (R, D), input_tokens (R, M), eligible (R, M), prices.

    answers: what a router that looks at answers may ask for, at its price.
    """

    queries: tuple[str, ...]
    vectors: Float32Array
    input_tokens: FloatArray
    eligible: BoolArray
    price_table: PriceTable
    answers: RecordedAnswers | None = None

    def __len__(self) -> int:
        return len(self.input_tokens)

    def rows(self, start: int, stop: int) -> EvaluationSplit:
        """Return the questions from `start` up to `stop`."""
        chosen = slice(start, stop)
        return EvaluationSplit(
            self.queries[chosen],
            self.vectors[chosen],
            self.input_tokens[chosen],
            self.eligible[chosen],
            self.price_table,
            None if self.answers is None else self.answers.rows(start, stop),
        )

    def cost_usd(self, output_tokens: FloatArray) -> FloatArray:
        """Forecast the USD (R, M) of answers with these output tokens (R, M)."""
        return self.price_table.cost_usd(self.input_tokens, output_tokens)


# a forecast, whose lambda is swept, or the choices (S, R) of a rule, or those of plans of several calls
RouterAnswer: TypeAlias = Forecast | Choices | PlanChoices
AnswerFunction: TypeAlias = Callable[[EvaluationSplit], RouterAnswer]


class ReplayRouter(Protocol):
    """A router under evaluation."""

    @property
    def name(self) -> str:
        """The router's key under `routers` in the report."""
        ...

    @property
    def reads(self) -> EncoderChoice:
        """Which encoder's vectors the router reads."""
        ...

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit on the training rows and return the function that routes. The same rows must give the same answers."""
        ...


@dataclass(frozen=True, slots=True)
class PriorReplayRouter:
    """Forecast each model's mean quality and mean output tokens. Of a question only its length is used.

    Near copies of a model are forecast with care, as the predictor `prior` does.
    """

    name: str = "prior"
    reads: EncoderChoice = "none"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Compute means over the training rows."""
        from eccos_core.predictors.targets.near_copies import cautious_means

        quality = cautious_means(train_split.table.quality, train_split.mean_quality, {})
        error = np.sqrt(quality * (1 - quality) / np.maximum(train_split.known.sum(axis=0), 1))
        high = high_output_tokens(train_split)

        def answer(held_out: EvaluationSplit) -> Forecast:
            return make_forecast(
                train_split,
                quality,
                train_split.price_table.typical_output_tokens,
                len(held_out),
                se=error,
                high=high,
            )

        return answer


def make_forecast(
    train_split: TrainSplit,
    quality: FloatArray,
    output_tokens: FloatArray,
    rows: int,
    *,
    se: FloatArray | None = None,
    high: FloatArray | None = None,
) -> Forecast:
    """Make a forecast of `rows` rows from arrays that are (R, M) or (M,). Quality is clipped to [0, 1], tokens to >= 0.

    Without `se` the standard error is that of a Bernoulli variable. Without `high` it is each model's 0.9 quantile.
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
    """Return the means (M,) of the cells that are not NaN, 0 for a column without any."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def high_output_tokens(train_split: TrainSplit) -> FloatArray:
    """Return the 0.9 quantile (M,) of each model's known output tokens, 0 for a model without any."""
    columns = train_split.table.output_tokens.T
    return np.array([np.quantile(c[~np.isnan(c)], 0.9) if (~np.isnan(c)).any() else 0.0 for c in columns])
