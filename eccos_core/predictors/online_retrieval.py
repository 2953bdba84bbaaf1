"""Predict from neighbours in an online history (ECCOS-R), so that new outcomes count at once.

The stacking weights are fitted when you create the predictor. Every decision asks the history (Chroma) for its
neighbours. The predictor keeps their outcomes in memory, and updates the rows that changed in the history.
`retrieval` and `hybrid` of `fit_predictor` keep a copy of the history instead. They are faster, and stay fixed until
you run `eccos fit` again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.io.outcome_tables import with_models
from eccos_core.predictors.ensemble.calibration import fit_calibration
from eccos_core.predictors.ensemble.decision_shrinkage import fit_decision_shrinkage
from eccos_core.predictors.ensemble.forecast_head import ForecastHead
from eccos_core.predictors.ensemble.group_error import GroupErrorModel
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.predictors.ensemble.weights import StackingWeights, fit_stacking_weights
from eccos_core.predictors.features.nearness import NearnessModel, fit_nearness
from eccos_core.predictors.features.projection import NEAREST_LANDMARKS, Neighbors, nearest_other_rows
from eccos_core.predictors.fit import MIN_ROWS, fit_predictor
from eccos_core.predictors.learners.knn import (
    NEAREST,
    NEIGHBOURHOODS,
    effective_neighbors,
    kernel_means,
    scale_bandwidths,
    typical_distance,
)
from eccos_core.predictors.targets.cost_units import fit_cost_units, put_cost_for_tokens
from eccos_core.predictors.targets.latent import LatentTargets, fit_latent_targets, transform_outcomes
from eccos_core.predictors.targets.prior import ModelPrior
from eccos_core.protocols import OnlineHistory

MAX_FIT_ROWS = 4_000  # more questions do not change the stacking weights
REFIT_UNTIL = 1_000  # questions: a smaller history is fitted again whenever it has doubled (0.5 s at most)


class OnlineRetrieval:
    """A predictor (implements `Predictor`) that asks a history for neighbours by cosine similarity.

    models: the pool, in the order of the forecast. neighbourhoods: (k, bandwidth) as in `NearestNeighbors`. With fewer
    than 10 questions that the pool answered, every forecast is the prior. It is thread-safe if the history is.

    Outcomes that this process adds count for the next forecast. So do new questions of other processes. Another
    process's outcome of a known question counts when this one fits again. A history that has doubled is fitted again,
    until it holds 1,000 questions. Raises `InputError` for a model with neither outcomes nor a prior.
    """

    def __init__(
        self,
        history: OnlineHistory,
        models: Sequence[str],
        *,
        priors: Mapping[str, ModelPrior] | None = None,
        neighbourhoods: Sequence[tuple[int, float | None]] = NEIGHBOURHOODS,
    ) -> None:
        self._history = history
        self._models = tuple(models)
        self._priors = dict(priors or {})
        self._neighbourhoods = tuple(neighbourhoods)
        self._lock = threading.Lock()
        self._state = self._load()

    @property
    def models(self) -> tuple[str, ...]:
        """The pool, in the order of the forecast."""
        return self._models

    @property
    def graded(self) -> frozenset[str]:
        """The models with outcomes, when the history was last fitted."""
        return self._state.prior.graded

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """Forecast R questions from their vectors (R, D). input_tokens (R,) are not used."""
        if np.shape(input_tokens) != (len(vectors),):
            raise InputError(f"input_tokens have shape {np.shape(input_tokens)}, must be ({len(vectors)},)")
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        found = self._history.nearest(vectors, NEAREST)
        squared = np.maximum(2.0 - 2.0 * found.similarity, 0.0).astype(np.float32)
        near = Neighbors(np.asarray(found.indices, dtype=np.int64), squared)
        state = self._update(int(near.rows.max(initial=-1)) + 1)
        if state.model is None:
            return state.prior.predict(vectors, np.asarray(input_tokens, dtype=np.float64))
        return state.model.forecast(self._models, near, state.values)

    def _update(self, rows: int) -> _State:
        """Read what was written since the last call. The state then has at least this many rows of the history."""
        with self._lock:
            state = self._state
            version, written = self._history.changes(state.version)
            rows = max(rows, int(written.max(initial=-1)) + 1)
            stale: IntArray = np.union1d(written, np.arange(len(state.values), rows))
            if len(stale):
                if state.model is None or state.model.rows * 2 <= rows <= 2 * REFIT_UNTIL:
                    self._state = self._load()
                else:
                    fresh = with_models(self._history.some(stale)[0], self._models)
                    fresh = put_cost_for_tokens(fresh, state.model.head.usd_per_unit)
                    values = state.model.update_rows(state.values, stale, fresh)
                    self._state = replace(state, version=version, values=values)
            return self._state

    def _load(self) -> _State:
        """Read the whole history, and fit on it."""
        version, _ = self._history.changes(0)
        table, vectors = self._history.table()
        table = with_models(table, self._models)
        prior = fit_predictor("prior", table, vectors, priors=self._priors)
        answered = np.flatnonzero(~np.isnan(table.quality).all(axis=1))
        if len(answered) < MIN_ROWS:
            return _State(version, np.empty((len(table), 0), dtype=np.float32), prior, None)
        usd_per_unit = fit_cost_units(table)
        table = put_cost_for_tokens(table, usd_per_unit)
        targets = fit_latent_targets(table, self._priors)
        values = targets.values.astype(np.float32)
        rows = np.sort(np.random.default_rng(0).permutation(answered)[:MAX_FIT_ROWS])
        model = _NeighborModel.fit(
            table,
            nearest_other_rows(vectors, NEAREST, rows),
            targets.latent_targets,
            values,
            rows,
            self._neighbourhoods,
            usd_per_unit,
        )
        return _State(version, values, prior, model)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """The history as of `version`. values (N, C): latent targets of its rows. model: None while it is too small."""

    version: int
    values: Float32Array
    prior: EnsemblePredictor
    model: _NeighborModel | None


@dataclass(frozen=True, slots=True, eq=False)
class _NeighborModel:
    """The fitted part. rows: of the history when it was fitted. reference: outcomes whose covariance imputes new ones.

    settings, typical_distance: see `kernel_means` and `typical_distance`.
    """

    rows: int
    reference: OutcomeTable
    settings: FloatArray
    typical_distance: float
    stack: StackingWeights
    head: ForecastHead
    nearness: NearnessModel

    @classmethod
    def fit(
        cls,
        table: OutcomeTable,
        others: Neighbors,
        latent_targets: LatentTargets,
        values: Float32Array,
        rows: IntArray,
        neighbourhoods: Sequence[tuple[int, float | None]],
        usd_per_unit: FloatArray,
    ) -> _NeighborModel:
        """Fit on the chosen rows (K,) of a table with values (N, C). others: the neighbours of these rows."""
        unit = typical_distance(others.squared_distance)
        settings = scale_bandwidths(neighbourhoods, unit)
        predictions = kernel_means(others, settings, values)
        reference = table.rows(rows)
        stack = fit_stacking_weights([predictions], values[rows].astype(np.float64))
        combined = stack.combine(predictions).astype(np.float64)
        calibration = fit_calibration(latent_targets.quality(combined), reference.quality)
        factors = fit_decision_shrinkage(latent_targets, combined, calibration, reference.quality)
        group_errors = GroupErrorModel.usual(latent_targets.models)
        head = ForecastHead.fit(latent_targets, combined * factors, reference, usd_per_unit, calibration, group_errors)
        counts = (~np.isnan(table.quality)).sum(axis=0).astype(np.float64)
        return cls(
            rows=len(table),
            reference=reference,
            settings=settings,
            typical_distance=unit,
            stack=stack.scale(factors),
            head=replace(head, standard_errors=replace(head.standard_errors, counts=counts)),
            nearness=fit_nearness(others.squared_distance, np.zeros(len(rows))),
        )

    def update_rows(self, values: Float32Array, rows: IntArray, fresh: OutcomeTable) -> Float32Array:
        """Return values (N, C) with the given rows (K,) computed from their fresh outcomes. Rows may lie beyond N."""
        grown = np.zeros((max(len(values), int(rows.max()) + 1), values.shape[1]), dtype=np.float32)
        grown[: len(values)] = values
        grown[rows] = transform_outcomes(self.head.latent_targets, fresh, self.reference)
        return grown

    def forecast(self, models: tuple[str, ...], near: Neighbors, values: Float32Array) -> Forecast:
        """Forecast R questions from their neighbours and the values (N, C) of the history's rows."""
        distance = self.nearness.distance(near.squared_distance, np.zeros(len(near.rows)))
        nearness = self.nearness.score(distance)
        predictions = kernel_means(near, self.settings, values)
        latent_targets = self.stack.combine(predictions).astype(np.float64) * nearness[:, None]
        return self.head.forecast(
            models,
            latent_targets,
            effective_neighbors(near.squared_distance[:, :NEAREST_LANDMARKS], self.typical_distance),
            nearness,
            self.head.group_errors.unseen(distance),
        )
