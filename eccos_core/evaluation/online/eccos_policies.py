"""The online layer of eccos as a policy: with each way of exploring, without updates, and with all outcomes seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.evaluation.online.stream import OnlineStream
from eccos_core.learning import CostRatios, Explore, OnlineLayer, choice_probabilities
from eccos_core.predictors import fit_predictor

START_SPREAD = 0.2  # from the cheapest to the dearest model: the quality that prices alone suggest
START_MEAN = 0.6


@dataclass(frozen=True, slots=True)
class EccosOnline:
    """Makes policies of the online layer.

    share: how many requests explore. updated: whether labels are learned from. all_outcomes: whether the outcomes of
    all models are seen, not only of the chosen one.
    """

    explore: Explore = "thompson"
    share: float = 0.3
    updated: bool = True
    all_outcomes: bool = False

    def __call__(self, stream: OnlineStream, warm: IntArray, seed: int) -> _Policy:
        """Fit the predictor on the warm rows, and teach the layer their outcomes."""
        return _Policy(self, stream, warm, seed)


class _Policy:
    def __init__(self, settings: EccosOnline, stream: OnlineStream, warm: IntArray, seed: int) -> None:
        self._settings, self._stream = settings, stream
        self._random = np.random.default_rng(seed)
        self._quality, self._cost, held_out = _start(stream, warm)
        self._layer = OnlineLayer(stream.table.models, stream.vectors.shape[1], questions=stream.vectors[warm])
        self._cost_ratios = CostRatios()
        self.exploration_usd = 0.0  # forecast cost of what was explored, over that of the usual choice
        if settings.updated:
            for at, row in enumerate(warm.tolist()):
                for model in np.flatnonzero(stream.known[row]).tolist():
                    self._learn(row, model, float(held_out[at, model]))

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Choose as the router does, with quality - cost / usd_per_quality as value."""
        settings, per_quality = self._settings, self._stream.usd_per_quality
        if not settings.updated:
            return int(np.argmax(np.where(allowed, self._quality[row] - self._cost[row] / per_quality, -np.inf)))
        made = self._layer.correct(self._stream.vectors[row], self._quality[row])
        cost = self._cost[row] * self._cost_ratios.of(self._stream.table.models)
        value = made.quality - cost / per_quality
        greedy = int(np.argmax(np.where(allowed, value, -np.inf)))
        chances = choice_probabilities(
            settings.explore, settings.share, greedy, value, made.covariance, allowed, self._random
        )
        chosen = int(self._random.choice(len(chances), p=chances))
        self.exploration_usd += max(0.0, float(cost[chosen] - cost[greedy]))
        return chosen

    def learn(self, row: int, model: int) -> None:
        """Learn one outcome, or with `all_outcomes` those of all models."""
        learned = np.flatnonzero(self._stream.known[row]).tolist() if self._settings.all_outcomes else [model]
        if self._settings.updated:
            for each in learned:
                self._learn(row, each, float(self._quality[row, each]))

    def _learn(self, row: int, model: int, forecast: float) -> None:
        stream, name, label = self._stream, self._stream.table.models[model], f"{row}/{model}"
        self._layer.learn(label, name, stream.vectors[row], float(stream.quality[row, model]) - forecast)
        ratio = float(self._cost_ratios.of([name])[0])
        self._cost_ratios.expect(label, name, float(self._cost[row, model]) * ratio)
        self._cost_ratios.observe(label, name, float(stream.cost_usd[row, model]))


def _start(stream: OnlineStream, warm: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the forecasts of quality and cost (N, M) before any feedback, and held-out ones of the warm rows (W, M).

    They come from a hybrid predictor fitted on the warm rows. Without any, from the rank of the prices.
    """
    shape = stream.quality.shape
    if not len(warm):
        rank = np.argsort(np.argsort(stream.list_price_usd.mean(axis=0))) / max(shape[1] - 1, 1) - 0.5
        quality = np.broadcast_to(START_MEAN + START_SPREAD * rank, shape)
        return quality, stream.list_price_usd, quality[:0]
    known = stream.known[warm]
    ratio = np.where(known, stream.cost_usd[warm], 0.0).sum(axis=0) / np.maximum(
        np.where(known, stream.list_price_usd[warm], 0.0).sum(axis=0), 1e-12
    )
    predictor = fit_predictor("hybrid", stream.table.rows(warm), stream.vectors[warm])
    tokens = np.nan_to_num(stream.table.input_tokens, nan=0.0).max(axis=1)
    forecast = predictor.predict(stream.vectors, np.where(tokens > 0, tokens, np.nan))
    assert predictor.training is not None
    cost = stream.list_price_usd * np.where(known.any(axis=0) & (ratio > 0), ratio, 1.0)
    return forecast.quality, cost, predictor.training.quality
