"""The training set of a base learner, and the protocols that learners implement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.features.projection import Neighbors, QueryFeatures
from eccos_core.predictors.targets.latent import TargetValues

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """A history to learn from.

    whole (N, D + 1), points (N, F), surface (columns of whole): see `Projection`. targets.values (N, C): the latent
    targets to predict, zero on average. fold (N,): learners fitted on the other folds predict a row. others: the
    nearest other rows of each row. quality (N, M), log_tokens (N, M): as observed, NaN where missing. labels: name ->
    (N,) group of each row, -1 none.
    """

    whole: Float32Array
    points: Float32Array
    surface: IntArray
    targets: TargetValues
    fold: IntArray
    others: Neighbors
    quality: FloatArray
    log_tokens: FloatArray
    labels: Mapping[str, IntArray]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.points)

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1


class FittedLearner(Protocol):
    """A base learner that has learnt. Reads nothing but the question."""

    def predict(self, features: QueryFeatures) -> Float32Array:
        """(R, L, C): L predictions on C latent targets; all zero is the prior."""
        ...

    def arrays(self) -> Arrays:
        """What an artifact keeps of it."""
        ...


class Learner(Protocol):
    """A base learner and its settings."""

    @property
    def name(self) -> str:
        """One word."""
        ...

    def fit(self, training: TrainingSet) -> tuple[FittedLearner, Float32Array]:
        """Return the learner fitted on all rows, and held-out predictions (N, L, C).

        The learner that predicts a row here has not seen that row.
        """
        ...


def deal_folds(rows: int, seed: int, folds: int = FOLDS) -> IntArray:
    """(N,) a fold for each row, of equal sizes, shuffled."""
    fold = np.arange(rows) % min(folds, rows)
    np.random.default_rng(seed).shuffle(fold)
    return fold
