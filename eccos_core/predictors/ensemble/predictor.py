"""One predictor of all kinds: base learners, stacked, calibrated, and honest about what it does not know.

    vectors ─View, Space─▶ features ─base learners─▶ opinions ─Stack─▶ signals ─Signals─▶ quality, log tokens, tokens
                                                                     × familiarity      ─Calibration, Lengths─▶ Forecast

`retrieval`, `kernel`, `linear`, `clusters` and `trained` have one base learner, `hybrid` has all, `prior` has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray
from eccos_core.errors import InputError, UnknownModelError
from eccos_core.predictors.ensemble.forecast_head import ForecastHead
from eccos_core.predictors.ensemble.weights import StackingWeights
from eccos_core.predictors.features.index import FittedIndex
from eccos_core.predictors.features.projection import row_blocks


@dataclass(frozen=True, slots=True, eq=False)
class EnsemblePredictor:
    """A fitted predictor (implements `Predictor`). Immutable; safe to call from several threads.

    dimensions: D of the vectors it reads. view: None for the prior. columns (M,): which of the fitted models stands
    where in the forecast; None: as they were fitted.
    """

    kind: str
    models: tuple[str, ...]
    dimensions: int
    index: FittedIndex | None
    stack: StackingWeights
    head: ForecastHead
    columns: IntArray | None = None

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """vectors (R, D), input_tokens (R,), NaN where unknown -> Forecast with R rows.

        Raises `InputError` when shapes do not fit, or vectors are not finite.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        input_tokens = np.asarray(input_tokens, dtype=np.float64)
        self._check(vectors, input_tokens)
        if self.index is None or not len(vectors):
            return self._of_pool(self._prior(len(vectors)))
        index = self.index
        parts = [self._learnt(index, vectors[rows], input_tokens[rows]) for rows in row_blocks(len(vectors))]
        return self._of_pool(Forecast.joined(parts))

    def for_pool(self, models: Sequence[str]) -> EnsemblePredictor:
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
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise InputError(
                f"vectors have shape {vectors.shape}, this predictor was fitted on (R, {self.dimensions}): "
                "use the encoder that it was fitted with, or fit again"
            )
        if input_tokens.shape != (len(vectors),):
            raise InputError(f"input_tokens have shape {input_tokens.shape}, must be ({len(vectors)},)")
        if not np.isfinite(vectors).all():
            raise InputError("vectors hold NaN or infinity, must be finite numbers")

    def _learnt(self, index: FittedIndex, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """What the base learners make of it, drawn towards the prior as far as the questions are unfamiliar."""
        features = index.features(vectors, input_tokens)
        familiarity = index.familiar(features)
        signals = self.stack.combine(index.predictions(features)) * familiarity[:, None]
        return self.head.forecast(self.models, signals, index.support(features.neighbors), familiarity)

    def _prior(self, rows: int) -> Forecast:
        """The same for everybody: each model's mean."""
        nothing = np.zeros((1, self.head.signals.count))
        one = self.head.forecast(self.models, nothing, np.zeros(1), np.zeros(1))
        return one.rows(np.zeros(rows, dtype=np.int64))

    def _of_pool(self, fitted: Forecast) -> Forecast:
        """Of a forecast with a column for each model that was fitted, the pool's."""
        if self.columns is None:
            return fitted
        return replace(
            fitted,
            quality=fitted.quality[:, self.columns],
            quality_se=fitted.quality_se[:, self.columns],
            output_tokens=fitted.output_tokens[:, self.columns],
            output_tokens_high=fitted.output_tokens_high[:, self.columns],
        )
