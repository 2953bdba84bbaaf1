"""The online layer of eccos as a policy: with each way of exploring, without updates, and with all outcomes seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.evaluation.online.stream import OnlineStream
from eccos_core.learning import Explore, OnlineLayer, choice_probabilities
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
        self._quality, self._cost = _start(stream, warm)
        self._layer = OnlineLayer(stream.table.models, stream.vectors.shape[1], questions=stream.vectors[warm])
        if settings.updated:
            for row in warm:
                for model in np.flatnonzero(stream.known[row]):
                    self._learn(int(row), int(model))

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Choose as the router does, with quality - cost / usd_per_quality as value."""
        settings, per_quality = self._settings, self._stream.usd_per_quality
        if not settings.updated:
            return int(np.argmax(np.where(allowed, self._quality[row] - self._cost[row] / per_quality, -np.inf)))
        made = self._layer.correct(self._stream.vectors[row], self._quality[row])
        value = made.quality - self._cost[row] * made.cost_factor / per_quality
        greedy = int(np.argmax(np.where(allowed, value, -np.inf)))
        chances = choice_probabilities(
            settings.explore, settings.share, greedy, value, made.covariance, allowed, self._random
        )
        return int(self._random.choice(len(chances), p=chances))

    def learn(self, row: int, model: int) -> None:
        """Learn one outcome, or with `all_outcomes` those of all models."""
        if self._settings.all_outcomes:
            for each in np.flatnonzero(self._stream.known[row]):
                self._learn(row, int(each))
        elif self._settings.updated:
            self._learn(row, model)

    def _learn(self, row: int, model: int) -> None:
        stream = self._stream
        self._layer.learn(
            f"{row}/{model}",
            stream.table.models[model],
            stream.vectors[row],
            float(stream.quality[row, model] - self._quality[row, model]),
            float(stream.cost_usd[row, model] / self._cost[row, model]),
        )


def _start(stream: OnlineStream, warm: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the forecasts of quality and cost (N, M) before any feedback.

    They come from a hybrid predictor fitted on the warm rows. Without any, from the rank of the prices.
    """
    shape = stream.quality.shape
    if not len(warm):
        rank = np.argsort(np.argsort(stream.list_price_usd.mean(axis=0))) / max(shape[1] - 1, 1) - 0.5
        return np.broadcast_to(START_MEAN + START_SPREAD * rank, shape), stream.list_price_usd
    known = stream.known[warm]
    ratio = np.where(known, stream.cost_usd[warm], 0.0).sum(axis=0) / np.maximum(
        np.where(known, stream.list_price_usd[warm], 0.0).sum(axis=0), 1e-12
    )
    predictor = fit_predictor("hybrid", stream.table.rows(warm), stream.vectors[warm])
    tokens = np.nan_to_num(stream.table.input_tokens, nan=0.0).max(axis=1)
    forecast = predictor.predict(stream.vectors, np.where(tokens > 0, tokens, np.nan))
    return forecast.quality, stream.list_price_usd * np.where(known.any(axis=0) & (ratio > 0), ratio, 1.0)
