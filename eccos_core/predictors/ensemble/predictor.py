"""Predict quality and output tokens with stacked and calibrated base learners.

    vectors ─Projection─▶ features ─base learners─▶ predictions ─StackingWeights─▶ latent targets
    latent targets × nearness    ─ForecastHead─▶ Forecast (quality, output tokens, standard errors)

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
from eccos_core.predictors.training_forecast import TrainingForecast


@dataclass(frozen=True, slots=True, eq=False)
class EnsemblePredictor:
    """A fitted predictor (implements `Predictor`). Immutable; safe to call from several threads.

    dimensions: D, the length of the vectors it reads. index: None for the prior. columns (M,): the fitted model of
    each column of the forecast. None keeps the fitted order. training: the held-out forecast of its training questions,
    for `models`. None if it had none.
    """

    kind: str
    models: tuple[str, ...]
    dimensions: int
    index: FittedIndex | None
    stack: StackingWeights
    head: ForecastHead
    columns: IntArray | None = None
    training: TrainingForecast | None = None

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """Forecast R questions from their vectors (R, D) and input tokens (R,), NaN where unknown.

        Raises `InputError` if the shapes do not fit, or a vector is not finite.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        input_tokens = np.asarray(input_tokens, dtype=np.float64)
        self._check(vectors, input_tokens)
        if self.index is None or not len(vectors):
            return self._select_columns(self._forecast_prior(len(vectors)))
        index = self.index
        parts = [self._forecast(index, vectors[rows], input_tokens[rows]) for rows in row_blocks(len(vectors))]
        return self._select_columns(Forecast.joined(parts))

    @property
    def graded(self) -> frozenset[str]:
        """The models with outcomes in the history that this predictor was fitted on."""
        counts = self.head.standard_errors.counts
        fitted = counts if self.columns is None else counts[self.columns]
        return frozenset(name for name, count in zip(self.models, fitted.tolist(), strict=True) if count > 0)

    def for_pool(self, models: Sequence[str]) -> EnsemblePredictor:
        """Return the same predictor for these models, in this order. You may leave models out.

        Raises `UnknownModelError` for a model that it was not fitted for.
        """
        position = {name: index for index, name in enumerate(self.models)}
        unknown = [name for name in models if name not in position]
        if unknown:
            raise UnknownModelError(unknown[0], self.models)
        if tuple(models) == self.models:
            return self
        columns = np.array([position[name] for name in models], dtype=np.int64)
        if self.columns is not None:
            columns = self.columns[columns]
        training = None if self.training is None else self.training.for_pool(models)
        return replace(self, models=tuple(models), columns=columns, training=training)

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

    def _forecast(self, index: FittedIndex, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """Forecast with the base learners, shrunk towards the prior where a question is far from the history."""
        query = index.query(vectors, input_tokens)
        distance = index.distance(query)
        nearness, unseen = index.nearness.score(distance), self.head.group_errors.unseen(distance)
        latent_targets = self.stack.combine(index.predict(query)) * nearness[:, None]
        return self.head.forecast(self.models, latent_targets, index.support(query), nearness, unseen)

    def _forecast_prior(self, rows: int) -> Forecast:
        """Forecast each model's mean for every question."""
        mean = np.zeros((1, self.head.latent_targets.count))
        one = self.head.forecast(self.models, mean, np.zeros(1), np.zeros(1), np.ones(1))
        return one.rows(np.zeros(rows, dtype=np.int64))

    def _select_columns(self, fitted: Forecast) -> Forecast:
        """Keep the pool's columns of a forecast that has one column for each fitted model."""
        if self.columns is None:
            return fitted
        return replace(
            fitted,
            quality=fitted.quality[:, self.columns],
            quality_se=fitted.quality_se[:, self.columns],
            group_error=None if fitted.group_error is None else fitted.group_error[:, self.columns],
            output_tokens=fitted.output_tokens[:, self.columns],
            output_tokens_high=fitted.output_tokens_high[:, self.columns],
            cost_usd=None if fitted.cost_usd is None else fitted.cost_usd[:, self.columns],
            cost_usd_high=None if fitted.cost_usd_high is None else fitted.cost_usd_high[:, self.columns],
        )
