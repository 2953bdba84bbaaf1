"""How good a reward model is on answers that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.io.answers import GradedAnswer

GOOD = 0.5  # an answer of this quality or more is good
BINS = 10


@dataclass(frozen=True, slots=True)
class ModelReward:
    """Held-out rewards of one model's answers. Quality and reward are means, so their difference is the bias.

    `auc`: None without both good and bad answers.
    """

    model: str
    answers: int
    quality: float
    reward: float
    brier: float
    auc: float | None


@dataclass(frozen=True, slots=True)
class RewardReport:
    """Held-out quality of a reward model.

    `auc`: the probability that a good answer has a higher reward than a bad one. `brier`: mean squared error of the
    reward. `brier_of_means`: the same for each model's mean quality, which needs no answer. `calibration_error`: mean
    distance of reward and quality in ten bins. `better_than_chance`: whether ranking good above bad is no accident (95
    %), judged by the answers within each model.
    """

    answers: int
    questions: int
    good: int
    auc: float
    brier: float
    brier_of_means: float
    calibration_error: float
    better_than_chance: bool
    models: tuple[ModelReward, ...]


def report_rewards(graded: Sequence[GradedAnswer], reward: FloatArray) -> RewardReport:
    """Compare held-out rewards (N,) with the grades of N answers, at least one of them good and one bad."""
    quality = np.array([each.quality for each in graded])
    good = quality >= GOOD
    names = np.array([each.answer.model for each in graded])
    models, means = [], np.empty(len(graded))
    excess = variance = 0.0
    for name in dict.fromkeys(names.tolist()):
        own = names == name
        means[own] = quality[own].mean()
        auc = area_under_curve(reward[own], good[own])
        if auc is not None:
            pairs = float(good[own].sum()) * float((~good[own]).sum())
            excess += pairs * (auc - 0.5)
            variance += pairs * (own.sum() + 1) / 12  # of the Mann-Whitney statistic, where rewards tell nothing
        brier = float(np.mean((reward[own] - quality[own]) ** 2))
        models.append(
            ModelReward(name, int(own.sum()), float(quality[own].mean()), float(reward[own].mean()), brier, auc)
        )
    auc = area_under_curve(reward, good)
    assert auc is not None
    bins = np.minimum((reward * BINS).astype(np.int64), BINS - 1)
    gaps = np.abs(np.bincount(bins, weights=reward - quality, minlength=BINS))
    return RewardReport(
        answers=len(graded),
        questions=len({each.answer.question for each in graded}),
        good=int(good.sum()),
        auc=auc,
        brier=float(np.mean((reward - quality) ** 2)),
        brier_of_means=float(np.mean((means - quality) ** 2)),
        calibration_error=float(gaps.sum() / len(graded)),
        better_than_chance=bool(excess > 1.645 * variance**0.5),
        models=tuple(models),
    )


def area_under_curve(score: FloatArray, good: BoolArray) -> float | None:
    """Return the area under the ROC curve, ties counted half. None without both kinds (Hanley and McNeil 1982)."""
    positive = int(good.sum())
    negative = len(good) - positive
    if not positive or not negative:
        return None
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[good].sum() - positive * (positive + 1) / 2) / (positive * negative))
