"""Correct the forecasts of a fitted predictor with every label, at once.

The layer learns what the predictor missed: label - forecast. Its features are principal axes of the questions that were
labelled. It fits them again at 32, 64, ... 1,024 labels, and then keeps them. How much models and questions differ is
fitted to all labels at 64, 128, 256, ... of them. Costs are learned by `CostRatios`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.errors import InputError
from eccos_core.learning.linear_posterior import LinearPosterior, Prior

FEATURES, PART = 64, 16  # axes of the shared part, and of the part of each model
FIRST_FIT, LAST_FIT = 32, 1024  # labels
ENOUGH_QUESTIONS = 256  # known before any label: their axes are kept
FIRST_PRIOR = 64  # labels


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What the layer makes of a forecast for one question. `quality` (M,) is in [0, 1].

    covariance (M, M): of the errors of `quality`.
    """

    quality: FloatArray
    covariance: FloatArray

    @property
    def quality_se(self) -> FloatArray:
        """Return the standard errors (M,) of `quality`."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Label:
    model: int
    vector: Float32Array
    missed: float


@dataclass(frozen=True, slots=True, eq=False)
class _Axes:
    """Principal axes (D, F) around a center (D,). Scaled so that a typical question has length 1."""

    center: FloatArray
    axes: FloatArray

    @classmethod
    def fit(cls, vectors: FloatArray, most: int) -> _Axes:
        center = vectors.mean(axis=0)
        centred = vectors - center
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        axes = directions[: min(most, len(vectors) // 2)].T
        length = np.sqrt(np.mean(np.sum(centred**2, axis=1)))
        return cls(center, axes / max(length, 1e-9))

    def project(self, vector: Float32Array) -> FloatArray:
        return np.asarray((vector - self.center) @ self.axes)


class OnlineLayer:
    """Learns from labels one by one. Safe to use from several threads.

    The same labels in the same order give the same layer. A second label of a decision replaces the first. forget: the
    weight that a label keeps with each later one, 1 for never forgetting. questions (N, D): vectors for the axes, where
    questions are known before any label.
    """

    def __init__(
        self,
        models: Sequence[str],
        dimensions: int,
        *,
        forget: float = 1.0,
        prior: Prior | None = None,
        questions: Float32Array | None = None,
    ) -> None:
        if not 0 < forget <= 1:
            raise InputError(f"forget is {forget}, must be above 0 and at most 1")
        self.models = tuple(models)
        self.dimensions = dimensions
        self._forget, self._prior = forget, prior or Prior()
        self._index = {name: column for column, name in enumerate(self.models)}
        self._labels: dict[str, _Label] = {}
        enough = questions is not None and len(questions) >= ENOUGH_QUESTIONS
        self._axes = _Axes.fit(np.asarray(questions, dtype=np.float64), FEATURES) if enough else None
        self._keeps_axes = enough
        self._lock = threading.Lock()
        self._start_over()

    def __len__(self) -> int:
        """Return how many decisions have a label."""
        return len(self._labels)

    def correct(self, vector: Float32Array, quality: FloatArray) -> Correction:
        """Correct the forecast quality (M,) of a question with this vector (D,)."""
        with self._lock:
            features = self._features(vector)
            missed = self._posterior.predict(features)
            covariance = self._posterior.covariance_of_means(features)
        return Correction(np.clip(quality + missed, 0.0, 1.0), covariance)

    def covariance(self, vector: Float32Array) -> FloatArray:
        """Return the covariance (M, M) of the errors of the corrected quality of a question with this vector (D,)."""
        with self._lock:
            return self._posterior.covariance_of_means(self._features(vector))

    def learn(self, decision_id: str, model: str, vector: Float32Array, quality_missed: float) -> None:
        """Take in one label: how far it was above the forecast.

        Labels may come late and in any order. Raises `InputError` for a model that the layer does not know, a vector
        of another length, and a value that is not finite.
        """
        label = self._label(model, vector, quality_missed)
        with self._lock:
            known = self._labels.get(decision_id)
            if known is not None and known.model == label.model:
                self._posterior.shift(label.model, self._features(known.vector), known.missed, label.missed)
                self._labels[decision_id] = _Label(known.model, known.vector, label.missed)
                return
            self._labels[decision_id] = label
            count = len(self._labels)
            doubled = count & (count - 1) == 0
            if doubled and not self._keeps_axes and FIRST_FIT <= count <= LAST_FIT:
                self._axes = _Axes.fit(np.stack([each.vector for each in self._labels.values()]), FEATURES)
                self._start_over()
                for each in self._labels.values():
                    self._add(each)
            else:
                self._add(label)
            if doubled and count >= FIRST_PRIOR:
                self._posterior.fit_prior()

    def _label(self, model: str, vector: Float32Array, missed: float) -> _Label:
        if model not in self._index:
            raise InputError(f"the layer does not know the model {model!r}; it knows {', '.join(self.models)}")
        if np.shape(vector) != (self.dimensions,):
            raise InputError(f"the vector has shape {np.shape(vector)}, must be ({self.dimensions},)")
        if not np.isfinite(missed) or not np.isfinite(vector).all():
            raise InputError("a label or its vector is not finite; give numbers")
        return _Label(self._index[model], vector, float(missed))

    def _start_over(self) -> None:
        features = 0 if self._axes is None else self._axes.axes.shape[1]
        self._posterior = LinearPosterior(len(self.models), features, PART, self._prior)

    def _add(self, label: _Label) -> None:
        self._posterior.update(label.model, self._features(label.vector), label.missed, forget=self._forget)

    def _features(self, vector: Float32Array) -> FloatArray:
        return np.empty(0) if self._axes is None else self._axes.project(vector)
