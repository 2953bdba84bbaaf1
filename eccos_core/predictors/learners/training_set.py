"""The training set of a base learner, and the protocols that learners implement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.features.projection import QueryFeatures
from eccos_core.predictors.targets.latent import TargetValues

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """The training set of a base learner.

    features (N, D + 1), points (N, F), surface (feature columns): see `Projection`. targets.values (N, C): the latent
    targets to predict, with mean zero. fold (N,): the fold of each row. landmarks (P,): rows that stand for all.
    nearest (N, k): squared distances of each row to other landmarks, see `nearest_distances`. quality (N, M),
    log_tokens (N, M): as observed, NaN where missing. labels: the group (N,) of each row by label name, -1 where a row
    has none. similar: a model's column to the column of the model that it is assumed to be like.
    """

    features: Float32Array
    points: Float32Array
    surface: IntArray
    targets: TargetValues
    fold: IntArray
    landmarks: IntArray
    nearest: Float32Array
    quality: FloatArray
    log_tokens: FloatArray
    labels: Mapping[str, IntArray]
    seed: int = 0
    similar: Mapping[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def folds(self) -> int:
        """The number of folds."""
        return int(self.fold.max()) + 1


class FittedLearner(Protocol):
    """A fitted base learner. It reads only the question."""

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return L predictions of the C latent targets, (R, L, C). Zero is the prior."""
        ...

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        ...


class Learner(Protocol):
    """A base learner and its settings."""

    @property
    def name(self) -> str:
        """One word, as in the artifact and in progress messages."""
        ...

    def fit(self, training: TrainingSet) -> tuple[FittedLearner, Float32Array]:
        """Return the learner fitted on all rows, and held-out predictions (N, L, C).

        A held-out prediction comes from a learner that has not seen the row.
        """
        ...


def assign_folds(rows: int, seed: int, folds: int = FOLDS) -> IntArray:
    """Return the fold (N,) of each row. Folds have equal sizes and are shuffled."""
    fold = np.arange(rows) % min(folds, rows)
    np.random.default_rng(seed).shuffle(fold)
    return fold
