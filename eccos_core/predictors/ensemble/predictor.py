"""Predict quality and output tokens with stacked and calibrated base learners.

    vectors ─Projection─▶ features ─base learners─▶ predictions ─StackingWeights─▶ latent targets
    latent targets × familiarity ─ForecastHead─▶ Forecast (quality, output tokens, standard errors)

`retrieval`, `kernel`, `linear`, `clusters` and `trained` have one base learner. `hybrid` has all of them.
`prior` has none.
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

    dimensions: D, the length of the vectors it reads. index: None for the prior. columns (M,): the fitted model of
    each column of the forecast. None keeps the fitted order.
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
        """Forecast with the base learners, shrunk towards the prior where questions are unfamiliar."""
        features = index.features(vectors, input_tokens)
        familiarity = index.familiar(features)
        latent_targets = self.stack.combine(index.predictions(features)) * familiarity[:, None]
        return self.head.forecast(self.models, latent_targets, index.support(features.neighbors), familiarity)

    def _prior(self, rows: int) -> Forecast:
        """Forecast each model's mean for every question."""
        nothing = np.zeros((1, self.head.latent_targets.count))
        one = self.head.forecast(self.models, nothing, np.zeros(1), np.zeros(1))
        return one.rows(np.zeros(rows, dtype=np.int64))

    def _of_pool(self, fitted: Forecast) -> Forecast:
        """Keep the pool's columns of a forecast that has one column for each fitted model."""
        if self.columns is None:
            return fitted
        return replace(
            fitted,
            quality=fitted.quality[:, self.columns],
            quality_se=fitted.quality_se[:, self.columns],
            output_tokens=fitted.output_tokens[:, self.columns],
            output_tokens_high=fitted.output_tokens_high[:, self.columns],
        )
