"""Predict from neighbours in an online history (ECCOS-R), so that new outcomes count at once.

The weights of the neighbourhoods are fitted when the predictor is made. Every decision asks the history (Chroma) for
its neighbours. The predictor keeps their outcomes, and updates the changed rows whenever the history changes.
`retrieval` and `hybrid` of `fit_predictor` keep a copy of the history instead. They are faster, and stay fixed until
`eccos fit` runs again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.io.outcomes import with_models
from eccos_core.predictors.ensemble.forecast_head import ForecastHead
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor
from eccos_core.predictors.ensemble.weights import StackingWeights, fit_stacking_weights
from eccos_core.predictors.features.familiarity import FamiliarityModel, fit_familiarity
from eccos_core.predictors.features.projection import NEAREST, Neighbors, nearest_other_rows
from eccos_core.predictors.fit import LEAST_ROWS, fit_predictor
from eccos_core.predictors.learners.knn import NEIGHBOURHOODS, FittedNearestNeighbors, scaled_neighbourhoods, support
from eccos_core.predictors.targets.latent import LatentTargets, fit_latent_targets, values_under
from eccos_core.predictors.targets.prior import ModelPrior
from eccos_core.protocols import OnlineHistory

TUNED_ON = 4_000  # questions at most: more change nothing that is tuned
TUNED_AGAIN_UNTIL = 1_000  # questions: a smaller history is tuned again whenever it has doubled (0.5 s at most)


class OnlineRetrieval:
    """A predictor (implements `Predictor`) that asks a history for neighbours by cosine similarity.

    `models`: the pool, in the order of the forecast. `neighbourhoods`: (k, bandwidth) as in `Retrieval`. With fewer
    than 10 questions that models of the pool answered, every forecast is the prior. Safe for several threads as far as
    the history is.

    What this process adds counts for the next forecast, and so does every new question of other processes; another
    process's new outcome of a known question counts after `refresh`. A history that has doubled is tuned again, until
    it holds 1,000 questions. Raises `InputError` for a model with neither outcomes nor a prior.
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
        self._known = self._read()

    @property
    def models(self) -> tuple[str, ...]:
        """The pool."""
        return self._models

    def refresh(self) -> None:
        """Reads the whole history again, and tunes again."""
        with self._lock:
            self._known = self._read()

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """vectors (R, D), input_tokens (R,), which neighbours know nothing of -> Forecast with R rows."""
        if np.shape(input_tokens) != (len(vectors),):
            raise InputError(f"input_tokens have shape {np.shape(input_tokens)}, must be ({len(vectors)},)")
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        found = self._history.nearest(vectors, NEAREST)
        squared = np.maximum(2.0 - 2.0 * found.similarity, 0.0).astype(np.float32)
        near = Neighbors(np.asarray(found.indices, dtype=np.int64), squared)
        known = self._up_to_date(int(near.rows.max(initial=-1)) + 1)
        if known.tuned is None:
            return known.prior.predict(vectors, np.asarray(input_tokens, dtype=np.float64))
        return known.tuned.forecast(self._models, near, known.values)

    def _up_to_date(self, rows: int) -> _Known:
        """What is known, with everything written since, and at least this many rows of the history."""
        with self._lock:
            known = self._known
            version, written = self._history.changes(known.version)
            rows = max(rows, int(written.max(initial=-1)) + 1)
            stale: IntArray = np.union1d(written, np.arange(len(known.values), rows))
            if len(stale):
                if known.tuned is None or known.tuned.rows * 2 <= rows <= 2 * TUNED_AGAIN_UNTIL:
                    self._known = self._read()
                else:
                    fresh = with_models(self._history.some(stale)[0], self._models)
                    self._known = replace(
                        known, version=version, values=known.tuned.replaced(known.values, stale, fresh)
                    )
            return self._known

    def _read(self) -> _Known:
        """Everything, from the beginning."""
        version, _ = self._history.changes(0)
        table, vectors = self._history.table()
        table = with_models(table, self._models)
        prior = fit_predictor("prior", table, vectors, priors=self._priors)
        answered = np.flatnonzero(~np.isnan(table.quality).all(axis=1))
        if len(answered) < LEAST_ROWS:
            return _Known(version, np.empty((len(table), 0), dtype=np.float32), prior, None)
        targets = fit_latent_targets(table, self._priors)
        values = targets.values.astype(np.float32)
        rows = np.sort(np.random.default_rng(0).permutation(answered)[:TUNED_ON])
        tuned = _Tuned.on(
            table,
            nearest_other_rows(vectors, NEAREST, rows),
            targets.latent_targets,
            values,
            rows,
            self._neighbourhoods,
        )
        return _Known(version, values, prior, tuned)


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """The history as of `version`: values (N, C), latent targets of its rows. `tuned` is None while it is too small."""

    version: int
    values: Float32Array
    prior: EnsemblePredictor
    tuned: _Tuned | None


@dataclass(frozen=True, slots=True, eq=False)
class _Tuned:
    """What neighbours are worth. `usual`: outcomes that say how models go together; rows: N when it was tuned."""

    rows: int
    usual: OutcomeTable
    settings: FloatArray
    typical: float
    stack: StackingWeights
    head: ForecastHead
    familiarity: FamiliarityModel

    @classmethod
    def on(
        cls,
        table: OutcomeTable,
        others: Neighbors,
        latent_targets: LatentTargets,
        values: Float32Array,
        rows: IntArray,
        neighbourhoods: Sequence[tuple[int, float | None]],
    ) -> _Tuned:
        """From a table and its values (N, C); others: the neighbours of the chosen rows (K,)."""
        settings, typical = scaled_neighbourhoods(others, neighbourhoods)
        predictions = FittedNearestNeighbors(settings, values).predictions(others)
        usual = table.rows(rows)
        stack = fit_stacking_weights([predictions], values[rows].astype(np.float64))
        combined = stack.combine(predictions).astype(np.float64)
        head = ForecastHead.of(latent_targets, combined, usual)
        counts = (~np.isnan(table.quality)).sum(axis=0).astype(np.float64)
        return cls(
            rows=len(table),
            usual=usual,
            settings=settings,
            typical=typical,
            stack=stack,
            head=replace(head, standard_errors=replace(head.standard_errors, counts=counts)),
            familiarity=fit_familiarity(others, np.zeros(len(rows))),
        )

    def replaced(self, values: Float32Array, rows: IntArray, fresh: OutcomeTable) -> Float32Array:
        """Values (N, C) with those of the given rows (K,), which may lie beyond N, taken from their outcomes."""
        grown = np.zeros((max(len(values), int(rows.max()) + 1), values.shape[1]), dtype=np.float32)
        grown[: len(values)] = values
        grown[rows] = values_under(self.head.latent_targets, fresh, self.usual)
        return grown

    def forecast(self, models: tuple[str, ...], near: Neighbors, values: Float32Array) -> Forecast:
        """From the neighbours of R questions, and the values (N, C) of the history's rows."""
        familiarity = self.familiarity.of(near, np.zeros(len(near.rows)))
        predictions = FittedNearestNeighbors(self.settings, values).predictions(near)
        latent_targets = self.stack.combine(predictions).astype(np.float64) * familiarity[:, None]
        return self.head.forecast(models, latent_targets, support(near, self.typical), familiarity)
