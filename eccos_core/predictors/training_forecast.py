"""What a predictor forecasts for its own training questions. The first prices of a stream come from it.

An artifact keeps it, so a service needs no history to start with the right prices.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.errors import ArtifactError
from eccos_core.protocols import Predictor

FILE = "training_forecast.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingForecast:
    """The forecast for S training questions: input_tokens (S,), quality, output_tokens and cost_usd (S, M).

    cost_usd: NaN for a model whose cost is its price times its tokens.
    """

    models: tuple[str, ...]
    input_tokens: FloatArray
    quality: FloatArray
    output_tokens: FloatArray
    cost_usd: FloatArray

    @classmethod
    def of(cls, predictor: Predictor, vectors: Float32Array, input_tokens: FloatArray) -> TrainingForecast:
        """Forecast training questions with these vectors (S, D)."""
        if not len(vectors):
            nothing = np.empty((0, len(predictor.models)))
            return cls(predictor.models, np.empty(0), nothing, nothing, nothing)
        forecast = predictor.predict(vectors, input_tokens)
        cost = forecast.with_recorded_cost(np.full(forecast.quality.shape, np.nan))
        return cls(predictor.models, input_tokens, forecast.quality, forecast.output_tokens, cost)

    def for_pool(self, models: Sequence[str]) -> TrainingForecast:
        """The same forecast with its columns in this order. You may leave models out."""
        columns = [self.models.index(name) for name in models]
        return TrainingForecast(
            tuple(models),
            self.input_tokens,
            self.quality[:, columns],
            self.output_tokens[:, columns],
            self.cost_usd[:, columns],
        )

    def save(self, folder: Path) -> None:
        """Write it into the folder of an artifact."""
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in _ARRAYS}
        save_file(arrays, str(folder / FILE), metadata={"models": json.dumps(self.models)})

    @classmethod
    def load(cls, folder: Path) -> TrainingForecast | None:
        """Read it from the folder of an artifact. None where `save_predictor` was given none.

        Raises `ArtifactError` for a damaged file.
        """
        from safetensors import SafetensorError, safe_open

        if not (folder / FILE).is_file():
            return None
        try:
            with safe_open(folder / FILE, framework="numpy") as file:
                models = tuple(json.loads(file.metadata()["models"]))
                arrays = {name: np.asarray(file.get_tensor(name), dtype=np.float64) for name in _ARRAYS}
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ArtifactError(f"{folder / FILE}: cannot be read ({error}). Run `eccos fit` again.") from error
        return cls(models, **arrays)


_ARRAYS = ("input_tokens", "quality", "output_tokens", "cost_usd")
