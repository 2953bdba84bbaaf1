"""What takes part in a replay: a contender studies the training rows and then answers for questions it never saw.

A contender gets a `Lesson`, with outcomes, and returns a function that gets an `Exam`, without any. So no contender can
look at the truth it is judged by; `oracle` is no contender, it is computed from the truth (see `replay.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, OutcomeTable
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.recorded_cost import Tariff

Reading: TypeAlias = Literal["text", "static", "none"]  # which encoder's vectors a contender reads


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Training rows: table of N questions, vectors (N, D) of the encoder of that name ("" where none is read), cost_usd
    (N, M) of the recorded answers, and prices."""

    table: OutcomeTable
    vectors: Float32Array
    cost_usd: FloatArray
    tariff: Tariff
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
        return np.where(np.isnan(self.table.output_tokens), self.tariff.typical_output_tokens, self.table.output_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """Test questions without their outcomes: queries (R), vectors (R, D), input_tokens (R, M), eligible (R, M), and
    prices."""

    queries: tuple[str, ...]
    vectors: Float32Array
    input_tokens: FloatArray
    eligible: BoolArray
    tariff: Tariff

    def __len__(self) -> int:
        return len(self.input_tokens)

    def rows(self, start: int, stop: int) -> Exam:
        """Some of the questions, in order."""
        chosen = slice(start, stop)
        return Exam(
            self.queries[chosen], self.vectors[chosen], self.input_tokens[chosen], self.eligible[chosen], self.tariff
        )

    def cost_usd(self, output_tokens: FloatArray) -> FloatArray:
        """(R, M) USD forecast for these output tokens (R, M)."""
        return self.tariff.cost_usd(self.input_tokens, output_tokens)


Answer: TypeAlias = Forecast | Choices  # a forecast is priced and swept; a rule of its own gives choices (S, R)
Answerer: TypeAlias = Callable[[Exam], Answer]


class Contender(Protocol):
    """A router under evaluation."""

    @property
    def name(self) -> str:
        """Its key under `routers` in the report."""
        ...

    @property
    def reads(self) -> Reading:
        """Which vectors it wants."""
        ...

    def study(self, lesson: Lesson) -> Answerer:
        """Fit on the training rows. The same lesson gives the same answers."""
        ...


@dataclass(frozen=True, slots=True)
class Prior:
    """No text at all: each model's mean quality and mean output tokens; only the question's length is known."""

    name: str = "prior"
    reads: Reading = "none"

    def study(self, lesson: Lesson) -> Answerer:
        """Means over the training rows."""
        quality = lesson.mean_quality
        error = np.sqrt(quality * (1 - quality) / np.maximum(lesson.known.sum(axis=0), 1))
        high = high_output_tokens(lesson)

        def answer(exam: Exam) -> Forecast:
            return forecast_of(lesson, quality, lesson.tariff.typical_output_tokens, len(exam), se=error, high=high)

        return answer


def forecast_of(
    lesson: Lesson,
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
    shape = (rows, len(lesson.table.models))
    clipped = np.broadcast_to(np.clip(quality, 0.0, 1.0), shape)
    return Forecast(
        models=lesson.table.models,
        quality=clipped,
        quality_se=np.broadcast_to(np.sqrt(clipped * (1 - clipped)) if se is None else se, shape),
        output_tokens=np.broadcast_to(np.maximum(output_tokens, 0.0), shape),
        output_tokens_high=np.broadcast_to(high_output_tokens(lesson) if high is None else high, shape),
        familiarity=np.zeros(rows),
    )


def column_means(values: FloatArray) -> FloatArray:
    """(M,) means of the cells that are not NaN; 0 for a column without any."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def high_output_tokens(lesson: Lesson) -> FloatArray:
    """(M,) the 0.9 quantile of each model's known output tokens; 0 for a model without any."""
    columns = lesson.table.output_tokens.T
    return np.array([np.quantile(c[~np.isnan(c)], 0.9) if (~np.isnan(c)).any() else 0.0 for c in columns])
