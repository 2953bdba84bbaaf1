"""One predictor of all kinds: base learners, stacked, calibrated, and honest about what it does not know.

    vectors ─View, Space─▶ features ─base learners─▶ opinions ─Stack─▶ signals ─Signals─▶ quality, log tokens, tokens
                                                                     × familiarity      ─Calibration, Lengths─▶ Forecast

`retrieval`, `kernel`, `linear`, `clusters` and `trained` have one base learner, `hybrid` has all, `prior` has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray
from eccos_core.errors import InputError, UnknownModelError
from eccos_core.predictors.calibration import Calibration
from eccos_core.predictors.doubt import Doubt
from eccos_core.predictors.length import Lengths
from eccos_core.predictors.space import blocks
from eccos_core.predictors.stacking import Stack
from eccos_core.predictors.targets import Signals
from eccos_core.predictors.view import View

# quality, standard error, output tokens, high output tokens (all R, M), familiarity (R,)
Columns: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class StackedPredictor:
    """A fitted predictor (implements `Predictor`). Immutable; safe to call from several threads.

    dimensions: D of the vectors it reads. view: None for the prior. columns (M,): which of the fitted models stands
    where in the forecast; None: as they were fitted.
    """

    kind: str
    models: tuple[str, ...]
    dimensions: int
    view: View | None
    signals: Signals
    stack: Stack
    calibration: Calibration
    lengths: Lengths
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
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise InputError(
                f"vectors have shape {vectors.shape}, this predictor was fitted on (R, {self.dimensions}): "
                "use the encoder that it was fitted with, or fit again"
            )
        if input_tokens.shape != (len(vectors),):
            raise InputError(f"input_tokens have shape {input_tokens.shape}, must be ({len(vectors)},)")
        if not np.isfinite(vectors).all():
            raise InputError("vectors hold NaN or infinity, must be finite numbers")

    def _block(self, vectors: Float32Array, input_tokens: FloatArray) -> Columns:
        """The forecast of one block of rows."""
        found = self._prior(len(vectors)) if self.view is None else self._learnt(self.view, vectors, input_tokens)
        if self.columns is None:
            return found
        quality, error, tokens, high, familiarity = found
        chosen = self.columns
        return quality[:, chosen], error[:, chosen], tokens[:, chosen], high[:, chosen], familiarity

    def _learnt(self, view: View, vectors: Float32Array, input_tokens: FloatArray) -> Columns:
        """What the base learners make of it, drawn towards the prior as far as the questions are unfamiliar."""
        look = view.look(vectors, input_tokens)
        familiarity = view.familiar(look)
        signals = self.stack.combine(view.opinions(look)) * familiarity[:, None]
        error = self.doubt.standard_error(view.support(look.neighbourhood), familiarity)
        return self._columns(signals, error, familiarity)

    def _prior(self, rows: int) -> Columns:
        """The same for everybody: each model's mean."""
        nothing = np.zeros((1, self.signals.count))
        one = self._columns(nothing, self.doubt.standard_error(np.zeros(1), np.zeros(1)), np.zeros(1))
        quality, error, tokens, high, familiarity = (np.repeat(column, rows, axis=0) for column in one)
        return quality, error, tokens, high, familiarity

    def _columns(self, signals: FloatArray, error: FloatArray, familiarity: FloatArray) -> Columns:
        logs = self.signals.log_tokens(signals)
        tokens = self.lengths.mean(logs, self.signals.tokens(signals))
        quality = self.calibration.apply(self.signals.quality(signals))
        return quality, error, tokens, self.lengths.high(logs, tokens), familiarity
