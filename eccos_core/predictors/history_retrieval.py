"""ECCOS-R over a living history: neighbours come from a `HistoryStore` (Chroma), so that new outcomes count at once.

What is tuned (how much to trust neighbours of which width, signal by signal) is tuned when it is made; which questions
are the neighbours, and what models made of them, is asked of the store at every decision. `retrieval` and `hybrid` of
`fit_predictor` keep a copy of the history instead: faster, and fixed until `eccos fit` runs again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.predictors.calibration import fit_calibration
from eccos_core.predictors.doubt import Doubt
from eccos_core.predictors.familiarity import fit_familiarity
from eccos_core.predictors.length import fit_lengths
from eccos_core.predictors.prior import ModelPrior, check_priors
from eccos_core.predictors.retrieval import NEIGHBOURHOODS, FittedRetrieval, scaled_neighbourhoods, support
from eccos_core.predictors.space import NEAREST, Neighbourhood, blocks
from eccos_core.predictors.stacking import fit_stack
from eccos_core.predictors.targets import Signals, find_targets, values_under
from eccos_core.protocols import HistoryStore


class HistoryRetrieval:
    """A predictor (implements `Predictor`) that asks a history for neighbours by cosine similarity.

    `models`: the pool, in the order of the forecast. `neighbourhoods`: (k, bandwidth) as in `Retrieval`. The history
    must hold at least 2 questions of these models. Safe for several threads as far as the store is.

    Raises `InputError` for a history that is too small, or a model with neither outcomes nor a prior.
    """

    def __init__(
        self,
        history: HistoryStore,
        models: Sequence[str],
        *,
        priors: Mapping[str, ModelPrior] | None = None,
        neighbourhoods: Sequence[tuple[int, float | None]] = NEIGHBOURHOODS,
    ) -> None:
        self._history = history
        self._models = tuple(models)
        self._lock = threading.Lock()
        table, vectors = self._table()
        known = ~np.isnan(table.quality).all(axis=1)
        if int(known.sum()) < 2:
            raise InputError(
                f"the history holds {int(known.sum())} questions that models of this pool answered, at least 2 are "
                "needed: collect some (`eccos collect`), or use the prior"
            )
        declared = dict(priors or {})
        check_priors(table, declared)
        targets = find_targets(table, declared)
        self._signals: Signals = targets.signals
        others = self._others(vectors)
        settings, typical = scaled_neighbourhoods(others, neighbourhoods)
        self._typical = typical
        self._learnt = FittedRetrieval(settings, targets.values.astype(np.float32))
        opinions = self._learnt.opinions(others)
        self._stack = fit_stack(opinions[known], targets.values[known])
        combined = self._stack.combine(opinions).astype(np.float64)
        raw = self._signals.quality(combined)
        self._calibration = fit_calibration(raw, table.quality)
        self._lengths = fit_lengths(self._signals.log_tokens(combined), table.output_tokens)
        self._doubt = Doubt.of(table, self._calibration.apply(raw))
        self._familiarity = fit_familiarity(others, np.zeros(len(vectors)))

    @property
    def models(self) -> tuple[str, ...]:
        """The pool."""
        return self._models

    def refresh(self) -> None:
        """Reads all outcomes again. New questions are noticed by themselves; new outcomes of known ones are not."""
        table, _ = self._table()
        values = values_under(self._signals, table).astype(np.float32)
        with self._lock:
            self._learnt = FittedRetrieval(self._learnt.settings, values)

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """vectors (R, D), input_tokens (R,), which neighbours know nothing of -> Forecast with R rows."""
        if np.shape(input_tokens) != (len(vectors),):
            raise InputError(f"input_tokens have shape {np.shape(input_tokens)}, must be ({len(vectors)},)")
        near = self._near(vectors, NEAREST)
        if near.rows.size and int(near.rows.max()) >= len(self._learnt.values):
            self.refresh()
        familiarity = self._familiarity.of(near, np.zeros(len(vectors)))
        opinions = self._learnt.opinions(near)
        signals = self._stack.combine(opinions).astype(np.float64) * familiarity[:, None]
        logs = self._signals.log_tokens(signals)
        tokens = self._lengths.mean(logs, self._signals.tokens(signals))
        return Forecast(
            models=self._models,
            quality=self._calibration.apply(self._signals.quality(signals)),
            quality_se=self._doubt.standard_error(support(near, self._typical), familiarity),
            output_tokens=tokens,
            output_tokens_high=self._lengths.high(logs, tokens),
            familiarity=familiarity,
        )

    def _table(self) -> tuple[OutcomeTable, Float32Array]:
        """All rows of the history, with the pool's columns: row i is what the store calls i."""
        table, vectors = self._history.table()
        place = {name: index for index, name in enumerate(table.models)}

        def spread(values: FloatArray) -> FloatArray:
            columns = [values[:, place[m]] if m in place else np.full(len(table), np.nan) for m in self._models]
            return np.stack(columns, axis=1)

        return (
            OutcomeTable(
                question_ids=table.question_ids,
                queries=table.queries,
                models=self._models,
                quality=spread(table.quality),
                input_tokens=spread(table.input_tokens),
                output_tokens=spread(table.output_tokens),
                labels=table.labels,
            ),
            vectors,
        )

    def _near(self, vectors: Float32Array, k: int) -> Neighbourhood:
        found = self._history.nearest(np.ascontiguousarray(vectors, dtype=np.float32), k)
        squared = np.maximum(2.0 - 2.0 * found.similarity, 0.0).astype(np.float32)
        return Neighbourhood(np.asarray(found.indices, dtype=np.int64), squared)

    def _others(self, vectors: Float32Array) -> Neighbourhood:
        """The nearest other rows of each row of the history, as the store finds them."""
        kept = min(NEAREST, len(vectors) - 1)
        parts = []
        for rows in blocks(len(vectors)):
            near = self._near(vectors[rows], kept + 1)
            own = near.rows == np.arange(rows.start, rows.stop)[:, None]
            own[~own.any(axis=1), -1] = True  # an equal question may stand in a row's own place: drop the farthest
            shape = (len(near.rows), near.rows.shape[1] - 1)
            parts.append(Neighbourhood(near.rows[~own].reshape(shape), near.squared_distance[~own].reshape(shape)))
        return Neighbourhood(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.squared_distance for part in parts]),
        )
