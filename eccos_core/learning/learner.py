"""`OnlineLearner`: the online layer of a router, with its journal and its budget for exploring."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, OutcomeTable
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.learning.cost_ratio import CostRatios
from eccos_core.learning.exploration import Explore, choice_probabilities
from eccos_core.learning.journal import BaseLabelJournal, JournalEntry
from eccos_core.learning.online_layer import OnlineLayer
from eccos_core.protocols import Predictor

MAX_REPLAYED = 20_000  # labels of the journal that a restart replays, in about three seconds
MAX_TAUGHT = 300  # questions of the history that the layer starts with
EXPLORING = "exploring"  # the purpose of the budget
HISTORY = "history/"  # begins the ids of labels that come from the history


@dataclass(frozen=True, slots=True)
class LearningRule:
    """How a router learns from labels and explores. `budget_usd_per_day`: the most that exploring may cost.

    share: how many decisions may explore, in [0, 1]. forget: the weight that a label keeps with each later one.
    """

    explore: Explore = "off"
    share: float = 0.05
    budget_usd_per_day: float = 2.0
    forget: float = 1.0


class OnlineLearner:
    """Corrects the forecasts of a predictor with labels, and chooses which models to explore. Thread-safe.

    history: outcomes and vectors (N, D) that the predictor was fitted on. A layer without labels starts from what the
    predictor missed there. journal: where labels are kept. A restart learns them again in the same order. Without a
    journal they are gone when the process ends. budget: what exploring may cost. By default it is that of the rule, in
    memory. cost_ratios: how far forecast costs are off, by all bills so far.
    """

    def __init__(
        self,
        predictor: Predictor,
        rule: LearningRule,
        history: tuple[OutcomeTable, Float32Array],
        journal: BaseLabelJournal | None = None,
        budget: DailyBudget | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        self.predictor, self.rule, self.journal = predictor, rule, journal
        self.budget = budget or DailyBudget(EXPLORING, rule.budget_usd_per_day)
        self.cost_ratios = CostRatios()
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        entries = journal.entries(MAX_REPLAYED) if journal is not None else []
        if not entries:
            entries = _history_entries(*history)
            if journal is not None:
                journal.put(entries)
        known = np.stack(first) if (first := _history_vectors(entries)) else None
        self._layer = OnlineLayer(predictor.models, history[1].shape[1], forget=rule.forget, questions=known)
        self._learn(entries)

    def __len__(self) -> int:
        """Return how many labels and outcomes of the history the layer has learned from."""
        return len(self._layer)

    def correct(self, forecast: Forecast, vectors: Float32Array) -> Forecast:
        """Return the forecast of R questions with vectors (R, D), corrected by all labels so far."""
        if not len(vectors):
            return forecast
        made = [self._layer.correct(vector, quality) for vector, quality in zip(vectors, forecast.quality, strict=True)]
        return replace(
            forecast,
            quality=np.stack([each.quality for each in made]),
            quality_se=np.minimum(forecast.quality_se, np.stack([each.quality_se for each in made])),
        )

    def learn(self, decision_id: str, model: str, vector: Float32Array, quality: float) -> None:
        """Take in a label in [0, 1]. It is in the journal, and on the disk, when this returns.

        A label of a model that left the pool, or of another encoder, is kept and not learned from.
        """
        entry = JournalEntry(decision_id, model, vector, quality)
        if self.journal is not None:
            self.journal.put([entry])
        self._learn([entry])

    def explore(
        self, greedy: int, usd_per_quality: float, vector: Float32Array, quality: FloatArray, cost_usd: FloatArray,
        allowed: BoolArray,
    ) -> tuple[int, float]:  # fmt: skip
        """Return the model to call, and the probability with which it was chosen.

        greedy: what the policy takes. quality (M,), cost_usd (M,): the corrected forecast. allowed (M,): the models
        that may be called. Extra cost over the greedy choice counts against the budget of the day.
        """
        with self._lock:
            affordable = allowed & (cost_usd - cost_usd[greedy] <= self.budget.left_usd)
            affordable[greedy] = True
            covariance = self._layer.covariance(vector) * usd_per_quality**2
            value = usd_per_quality * quality - cost_usd
            chances = choice_probabilities(
                self.rule.explore, self.rule.share, greedy, value, covariance, affordable, self._random
            )
            chosen = int(self._random.choice(len(chances), p=chances))
            self.budget.settle(0.0, max(0.0, float(cost_usd[chosen] - cost_usd[greedy])))
        return chosen, float(chances[chosen])

    def _learn(self, entries: Sequence[JournalEntry]) -> None:
        models = {name: column for column, name in enumerate(self.predictor.models)}
        usable = [each for each in entries if each.model in models and len(each.vector) == self._layer.dimensions]
        if not usable:
            return
        forecast = self.predictor.predict(np.stack([each.vector for each in usable]), np.full(len(usable), np.nan))
        for row, each in enumerate(usable):
            missed = each.quality - float(forecast.quality[row, models[each.model]])
            self._layer.learn(each.decision_id, each.model, each.vector, missed)


def _history_entries(table: OutcomeTable, vectors: Float32Array) -> list[JournalEntry]:
    """Return the outcomes of up to 300 questions as labels, so that the layer knows how good the predictor is."""
    rows = np.random.default_rng(0).permutation(len(table))[:MAX_TAUGHT]
    return [
        JournalEntry(f"{HISTORY}{row}/{model}", model, vectors[row], float(table.quality[row, column]))
        for row in rows.tolist()
        for column, model in enumerate(table.models)
        if not np.isnan(table.quality[row, column])
    ]


def _history_vectors(entries: Sequence[JournalEntry]) -> list[Float32Array]:
    """Return the vector of each question of the history, once."""
    found = {each.decision_id.split("/")[1]: each.vector for each in entries if each.decision_id.startswith(HISTORY)}
    return list(found.values())
