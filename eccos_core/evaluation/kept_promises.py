"""Measure whether floors are kept: ask for a mean quality, and compare it with what the chosen answers really had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.evaluation.metrics import Choices, RecordedOutcomes, operating_points

FLOOR_COUNT = 11
CLOSE = 0.01  # a floor counts as kept within one point of accuracy


@dataclass(frozen=True, slots=True, eq=False)
class KeptPromises:
    """Floors that were asked for, and the accuracy that was realised: asked (F,), realised (F,).

    A floor above the router's highest forecast is refused, so it is left out. F may be 0.
    """

    asked: FloatArray
    realised: FloatArray

    @property
    def close_share(self) -> float:
        """The share of floors whose realised accuracy is within one point."""
        return float((np.abs(self.realised - self.asked) <= CLOSE + 1e-12).mean())

    @property
    def mean_difference(self) -> float:
        """The mean of realised minus asked."""
        return float((self.realised - self.asked).mean())

    @property
    def worst(self) -> float:
        """The lowest realised minus asked."""
        return float((self.realised - self.asked).min())


def measure_kept_promises(quality: FloatArray, choices: Choices, recorded: RecordedOutcomes) -> KeptPromises:
    """Ask for floors from the cheapest model's accuracy to the best one's, over all questions as one batch.

    quality (R, M) is forecast, choices (S, R) are those of the lambda sweep. Two neighbouring settings are mixed, so
    that the mean forecast is the floor. By forecast there is no cheaper way: a sweep has the settings of the hull.
    """
    rows = np.arange(choices.shape[1])
    promised, first = np.unique(quality[rows, choices].mean(axis=1), return_index=True)
    _, accuracy = operating_points(choices, recorded)
    singles = recorded.single_accuracy
    asked = np.linspace(singles[recorded.cheapest_single], singles[recorded.best_single], FLOOR_COUNT)
    asked = asked[asked <= promised[-1]]
    return KeptPromises(asked, np.interp(asked, promised, accuracy[first]))
