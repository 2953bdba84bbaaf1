"""Ties the efforts of one deployment together: what is known of one tells of the others.

The effort with the most outcomes stands for the deployment, else the middle one. The others are expected to be like it,
better and longer by how much more they may think.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from eccos_core.config import PoolEntry
from eccos_core.config.efforts import middle_effort

if TYPE_CHECKING:
    from eccos_core.predictors import ModelPrior

LOG_ODDS_PER_STEP: Final = 0.25
"""How much better a model answers one effort higher. o3-mini on GPQA diamond: 70.6 % low, 76.8 % medium, 79.7 % high,
which is 0.32 and 0.17 in log-odds (OpenAI, January 2025). A guess that 20 outcomes outweigh."""

SPOKEN: Final = 0.1
"""The share of the longest answer that a model says after it has thought, where lengths are compared."""


def tie_efforts(
    pool: Sequence[PoolEntry], priors: Mapping[str, ModelPrior], outcomes: Mapping[str, int]
) -> dict[str, ModelPrior]:
    """Return the priors with those of efforts tied to the effort that stands for their deployment.

    `outcomes` is how many outcomes each model has. A deployment whose efforts all have the prior of its entry
    (`assumed_quality`, `assume_like`) gives it to the effort that stands for it.
    """
    from eccos_core.predictors import ModelPrior

    tied = dict(priors)
    deployments: dict[str, list[PoolEntry]] = {}
    for entry in pool:
        if entry.effort is not None:
            deployments.setdefault(entry.model.deployment, []).append(entry)
    for arms in deployments.values():
        anchor = _anchor(arms, outcomes)
        for rank, entry in enumerate(arms):
            if rank != anchor:
                tied[entry.model.name] = ModelPrior(
                    assume_like=arms[anchor].model.name,
                    log_odds=LOG_ODDS_PER_STEP * (rank - anchor),
                    length_ratio=_length(arms, rank) / _length(arms, anchor),
                )
    return tied


def _anchor(arms: Sequence[PoolEntry], outcomes: Mapping[str, int]) -> int:
    """Return the position of the effort that the others are compared with."""
    efforts = [entry.effort for entry in arms if entry.effort is not None]
    middle = efforts.index(middle_effort(efforts))
    counts = [outcomes.get(entry.model.name, 0) for entry in arms]
    return max(range(len(arms)), key=lambda rank: (counts[rank], -abs(rank - middle)))


def _length(arms: Sequence[PoolEntry], rank: int) -> float:
    """Return how long answers are at an effort, in units that its siblings share.

    It is the share of the longest answer that the model may think. Where an effort does not say, each counts as half
    as long again as the one before.
    """
    levels = [entry.effort.level if entry.effort is not None else None for entry in arms]
    level = levels[rank]
    if level is None or None in levels:
        return math.pow(1.5, rank)
    return SPOKEN + level
