"""LiteLLM's complexity router: keywords and length put a question into one of four tiers, and a tier has a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eccos_core.domain import FloatArray, Forecast
from eccos_core.evaluation.baselines.neighbours import average_neighbours
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.protocol import (
    AnswerFunction,
    EncoderChoice,
    EvaluationSplit,
    TrainSplit,
    make_forecast,
)

Boundaries = Literal["default", "quartiles"]


@dataclass(frozen=True, slots=True)
class ComplexityBaseline:
    """Route by the scorer of LiteLLM's complexity router (`auto_router/complexity_router`), which reads no embedding.

    An operator names a model for each tier. Here each tier has the means of its training questions, and lambda is
    swept, so every tier gets the model that serves it best at that price. The boundaries between tiers are LiteLLM's,
    or quartiles of the training questions' scores. This is tuned.
    """

    name: str = "litellm_complexity"
    boundaries: tuple[Boundaries, ...] = ("default", "quartiles")
    reads: EncoderChoice = "none"

    def settings(self, train_split: TrainSplit) -> Sequence[Boundaries]:
        """Return the ways to draw boundaries."""
        return self.boundaries

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[Boundaries]) -> Sequence[AnswerFunction]:
        """Score the training questions, and take the means of each tier."""
        scorer = _Scorer()
        scores = scorer.score(train_split.table.queries)
        return [_fit_tiers(train_split, scorer, scores, boundaries) for boundaries in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the boundaries."""
        return fit_tuned(self, train_split)


class _Scorer:
    """LiteLLM's weighted score of a question, about -0.1 to 1, and its boundaries between tiers."""

    def __init__(self) -> None:
        from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

        tiers = dict.fromkeys(("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), "any")
        self._router = ComplexityRouter(
            self.__class__.__name__,
            None,  # the routing context serves calls, and scoring makes none
            {"tiers": tiers},
            derive_savings_baseline=False,
        )
        self.default_boundaries = np.sort(np.array(list(self._router.config.tier_boundaries.values())))

    def score(self, queries: Sequence[str]) -> FloatArray:
        """Return the scores (R,)."""
        return np.array([self._router.classify(query)[1] for query in queries], dtype=np.float64)


def _fit_tiers(train_split: TrainSplit, scorer: _Scorer, scores: FloatArray, boundaries: Boundaries) -> AnswerFunction:
    edges = scorer.default_boundaries if boundaries == "default" else np.quantile(scores, [0.25, 0.5, 0.75])
    tier_of = np.searchsorted(edges, scores, side="right")
    rows = [np.flatnonzero(tier_of == tier) for tier in range(len(edges) + 1)]
    means = [average_neighbours(train_split, members[None]) for members in rows]
    quality = np.concatenate([mean for mean, _ in means])
    tokens = np.concatenate([mean for _, mean in means])

    def answer(held_out: EvaluationSplit) -> Forecast:
        tiers = np.searchsorted(edges, scorer.score(held_out.queries), side="right")
        return make_forecast(train_split, quality[tiers], tokens[tiers], len(held_out))

    return answer
