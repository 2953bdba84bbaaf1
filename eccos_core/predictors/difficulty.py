"""Order questions by a general difficulty, for a pool without outcomes.

A fixed linear direction over the vectors of the static and the surface encoder says how hard a question looks. It ships
with eccos (`difficulty.json`), and `python -m tools.difficulty.fit` makes it again. The quality of model j is then, as
in a one-parameter item response model (Rasch 1960):

    logit(quality of j on i) = logit(mean quality of j) - SLOPE * difficulty of i
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.predictors.ensemble.predictor import EnsemblePredictor

SLOPE = (
    0.25  # logits a standard deviation of difficulty: small, because the questions it was learned from are not yours
)
MAX_DIFFICULTY = 2.5  # standard deviations
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class DifficultyDirection:
    """A linear difficulty: vectors @ weights + offset, in standard deviations of the questions it was learned from.

    `encoder` is the name of the encoder whose vectors (R, D) it reads. weights (D,).
    """

    encoder: str
    weights: FloatArray
    offset: float

    def score(self, vectors: Float32Array) -> FloatArray:
        """Return the difficulty (R,) of questions, at most 2.5 from zero. Higher is harder."""
        return np.clip(vectors @ self.weights + self.offset, -MAX_DIFFICULTY, MAX_DIFFICULTY)


def difficulty_path() -> Path:
    """Return the file of the direction that ships with eccos."""
    return Path(str(files("eccos_core.predictors"))) / "difficulty.json"


@cache
def shipped_difficulty() -> DifficultyDirection:
    """Load the direction that ships with eccos."""
    about = json.loads(difficulty_path().read_text(encoding="utf-8"))
    return DifficultyDirection(about["encoder"], np.array(about["weights"]), float(about["offset"]))


@dataclass(frozen=True, slots=True, eq=False)
class DifficultyPredictor:
    """Each model's mean quality, moved by the difficulty of the question (implements `Predictor`)."""

    means: EnsemblePredictor
    difficulty: DifficultyDirection

    @property
    def models(self) -> tuple[str, ...]:
        """The pool, in the order of the forecast."""
        return self.means.models

    @property
    def graded(self) -> frozenset[str]:
        """The models with outcomes."""
        return self.means.graded

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """Forecast R questions from their vectors (R, D) and input tokens (R,).

        Raises `InputError` if the shapes do not fit, or a vector is not finite.
        """
        forecast = self.means.predict(vectors, input_tokens)
        mean = np.clip(forecast.quality, _SMALLEST, 1 - _SMALLEST)
        logits = np.log(mean / (1 - mean)) - SLOPE * self.difficulty.score(vectors)[:, None]
        return replace(forecast, quality=1 / (1 + np.exp(-logits)))

    def for_pool(self, models: Sequence[str]) -> DifficultyPredictor:
        """Return the same predictor for these models, in this order. Raises `UnknownModelError`."""
        return replace(self, means=self.means.for_pool(models))


def with_difficulty(predictor: EnsemblePredictor, encoder: str) -> EnsemblePredictor | DifficultyPredictor:
    """Let the difficulty of a question count in a predictor that learned nothing from questions.

    A predictor that learned from questions stays as it is. So does one of the kind `prior`, and one that reads vectors
    of another encoder than the direction.
    """
    direction = shipped_difficulty()
    if predictor.index is not None or predictor.kind == "prior" or encoder != direction.encoder:
        return predictor
    return DifficultyPredictor(predictor, direction)
