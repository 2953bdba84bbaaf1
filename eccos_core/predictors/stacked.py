"""One predictor of all kinds: base learners, stacked, calibrated, and honest about what it does not know.

    vectors ─Space─▶ features ─base learners─▶ opinions ─Stack─▶ signals ─Signals─▶ quality, log tokens
                                                                   × familiarity      ─Calibration, Lengths─▶ Forecast

`retrieval`, `kernel`, `linear`, `clusters` and `trained` have one base learner, `hybrid` has all, `prior` has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray
from eccos_core.errors import InputError, UnknownModelError
from eccos_core.predictors.calibration import Calibration
from eccos_core.predictors.familiarity import Familiarity
from eccos_core.predictors.length import Lengths
from eccos_core.predictors.retrieval import kernel
from eccos_core.predictors.space import Look, Neighbourhood, Space, blocks
from eccos_core.predictors.stacking import Stack
from eccos_core.predictors.study import Fitted
from eccos_core.predictors.targets import Signals

SUPPORT_NEIGHBOURS = 64
SUPPORT_WIDTH = 0.6  # bandwidth, in typical squared distances, of the neighbours that stand behind a forecast
OWN_SUPPORT = 10.0  # outcomes that the regression over the whole history is worth, beside the neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """How far a forecast may be off.

    noise (M,): variance of outcomes about their forecasts; spread (M,): variance of the forecasts themselves, which is
    what the prior does not know; counts (M,): outcomes of each model; typical: squared distance of near questions.
    """

    noise: FloatArray
    spread: FloatArray
    counts: FloatArray
    typical: float

    def standard_error(self, near: Neighbourhood, familiarity: FloatArray) -> FloatArray:
        """(R, M) from the number of neighbours that stand behind each forecast, and from how familiar it is."""
        mean = self.noise / (self.counts + 1)
        if near.rows.shape[1] == 0:
            return np.tile(np.sqrt(mean + self.spread), (len(near.rows), 1))
        weights = kernel(
            near.squared_distance[:, :SUPPORT_NEIGHBOURS], SUPPORT_NEIGHBOURS, SUPPORT_WIDTH * self.typical
        )
        support = 1.0 / np.einsum("rk,rk->r", weights, weights).astype(np.float64)
        share = familiarity[:, None] ** 2
        local = self.noise / (np.minimum(support[:, None], self.counts) + OWN_SUPPORT)
        return np.asarray(np.sqrt(mean + share * np.minimum(local, self.noise) + (1 - share) * self.spread))


@dataclass(frozen=True, slots=True, eq=False)
class StackedPredictor:
    """A fitted predictor (implements `Predictor`). Immutable; safe to call from several threads.

    points (N, F): the history's questions. learners: (name, what it learnt), in the order of the stack's opinions.
    columns (M,): which of the fitted models stands where in the forecast; None: as they were fitted.
    """

    kind: str
    models: tuple[str, ...]
    space: Space
    points: Float32Array
    squared_lengths: Float32Array
    signals: Signals
    learners: tuple[tuple[str, Fitted], ...]
    stack: Stack
    calibration: Calibration
    lengths: Lengths
    familiarity: Familiarity
    doubt: Doubt
    columns: IntArray | None = None

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """vectors (R, D), input_tokens (R,), NaN where unknown -> Forecast with R rows.

        Raises `InputError` when shapes do not fit, or vectors are not finite.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        input_tokens = np.asarray(input_tokens, dtype=np.float64)
        self._check(vectors, input_tokens)
        parts = [self._block(vectors[rows], input_tokens[rows]) for rows in blocks(len(vectors))]
        if len(parts) == 1:
            return Forecast(self.models, *parts[0])
        if not parts:
            empty = np.empty((0, len(self.models)))
            return Forecast(self.models, empty, empty, empty, empty, np.empty(0))
        quality, error, tokens, high, familiarity = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Forecast(self.models, quality, error, tokens, high, familiarity)

    def for_pool(self, models: Sequence[str]) -> StackedPredictor:
        """The same predictor with its columns in this order; models may be left out. Raises `UnknownModelError`."""
        place = {name: index for index, name in enumerate(self.models)}
        unknown = [name for name in models if name not in place]
        if unknown:
            raise UnknownModelError(unknown[0], self.models)
        if tuple(models) == self.models:
            return self
        chosen = np.array([place[name] for name in models], dtype=np.int64)
        columns = chosen if self.columns is None else self.columns[chosen]
        return replace(self, models=tuple(models), columns=columns)

    def _check(self, vectors: Float32Array, input_tokens: FloatArray) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.space.dimensions:
            raise InputError(
                f"vectors have shape {vectors.shape}, this predictor was fitted on (R, {self.space.dimensions}): "
                "use the encoder that it was fitted with, or fit again"
            )
        if input_tokens.shape != (len(vectors),):
            raise InputError(f"input_tokens have shape {input_tokens.shape}, must be ({len(vectors)},)")
        if not np.isfinite(vectors).all():
            raise InputError("vectors hold NaN or infinity, must be finite numbers")

    def _block(
        self, vectors: Float32Array, input_tokens: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """(quality, standard error, output tokens, high output tokens (all R, M), familiarity (R,))."""
        found = self._learnt(vectors, input_tokens) if self.learners else self._prior(len(vectors))
        if self.columns is None:
            return found
        quality, error, tokens, high, familiarity = found
        chosen = self.columns
        return quality[:, chosen], error[:, chosen], tokens[:, chosen], high[:, chosen], familiarity

    def _learnt(
        self, vectors: Float32Array, input_tokens: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """What the base learners make of it."""
        look = self._look(vectors, input_tokens)
        left_out = np.einsum("rd,rd->r", look.whole, look.whole) - np.einsum("rf,rf->r", look.points, look.points)
        familiarity = self.familiarity.of(look.neighbourhood, left_out.astype(np.float64))
        opinions = np.concatenate([learner.predict(look) for _, learner in self.learners], axis=1)
        signals = self.stack.combine(opinions) * familiarity[:, None]
        logs = self.signals.log_tokens(signals)
        tokens = self.lengths.mean(logs, self.signals.tokens(signals))
        return (
            self.calibration.apply(self.signals.quality(signals)),
            self.doubt.standard_error(look.neighbourhood, familiarity),
            tokens,
            self.lengths.high(logs, tokens),
            familiarity,
        )

    def _look(self, vectors: Float32Array, input_tokens: FloatArray) -> Look:
        whole = self.space.whole(vectors, input_tokens)
        return Look(whole, self.space.points(whole), self.points, self.squared_lengths)

    def _prior(self, rows: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """The same for everybody: each model's mean."""
        nobody = Neighbourhood(np.empty((1, 0), dtype=np.int64), np.empty((1, 0), dtype=np.float32))
        logs = self.signals.mean_log_tokens[None]
        tokens = self.lengths.mean(logs, self.signals.mean_tokens[None])
        columns = (
            self.calibration.apply(self.signals.mean_quality[None]),
            self.doubt.standard_error(nobody, np.zeros(1)),
            tokens,
            self.lengths.high(logs, tokens),
        )
        quality, error, tokens, high = (np.repeat(column, rows, axis=0) for column in columns)
        return quality, error, tokens, high, np.zeros(rows)
