"""A router whose forecasts are told: an encoder that looks for words, and a predictor that looks them up in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, Model, Policy, QualityFloor

if TYPE_CHECKING:
    from eccos_core.protocols import Backend, HistoryStore
    from eccos_core.router import Router


class WordEncoder:
    """An `Encoder` with one dimension per word that it knows, and one for texts without any of them."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)

    @property
    def name(self) -> str:
        """The words."""
        return f"words:{','.join(self._words)}"

    @property
    def dimensions(self) -> int:
        """One per word, and one."""
        return len(self._words) + 1

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(len(texts), D); a text is what the first of the known words in it says."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            found = [column for column, word in enumerate(self._words) if word in text]
            vectors[row, found[0] if found else -1] = 1.0
        return vectors


class TablePredictor:
    """A `Predictor` that looks its forecast up. quality (D, M): one row per dimension of the encoder."""

    def __init__(self, models: Sequence[str], quality: FloatArray, output_tokens: float = 20.0) -> None:
        self._models = tuple(models)
        self._quality = np.asarray(quality, dtype=np.float64)
        self._output_tokens = output_tokens

    @property
    def models(self) -> tuple[str, ...]:
        """The M models."""
        return self._models

    def predict(self, vectors: Float32Array, input_tokens: FloatArray) -> Forecast:
        """The table's rows; every answer is expected to have `output_tokens` tokens, and at most twice as many."""
        quality = vectors.astype(np.float64) @ self._quality
        tokens = np.full(quality.shape, self._output_tokens)
        return Forecast(self._models, quality, np.full(quality.shape, 0.05), tokens, 2 * tokens, np.ones(len(quality)))


def scripted_router(
    backend: Backend,
    models: Sequence[Model],
    quality: Mapping[str, Sequence[float]],
    *,
    policy: Policy | None = None,
    usd_per_quality: float = 0.0,
    history: HistoryStore | None = None,
    deadline_s: float = 5.0,
) -> Router:
    """A real router over `backend` whose forecasts are told.

    `quality` maps a word to the quality (M,) of every model on questions that have it; the empty word stands for all
    other questions. `policy` is the batches' (mean quality at least 0.5), `usd_per_quality` the price of a stream.
    """
    from eccos_core.router import Router
    from eccos_core.routing.decision_store import DecisionStore
    from eccos_core.routing.sessions import Sessions
    from eccos_core.streaming import FixedPrice

    words = [word for word in quality if word]
    otherwise = quality.get("", [0.5] * len(models))
    table = np.array([*(quality[word] for word in words), otherwise])
    return Router(
        models,
        TablePredictor([model.name for model in models], table),
        backend,
        encoder=WordEncoder(words),
        steering=FixedPrice(usd_per_quality),
        policy=policy or QualityFloor(0.5),
        decision_store=DecisionStore(history, sessions=Sessions()),
        deadline_s=deadline_s,
    )
