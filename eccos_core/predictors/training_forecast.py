"""What a predictor forecast for its own training questions before it saw their outcomes, beside what was observed.

An artifact keeps it. So a service needs no history to start with the right prices, and knows how far the quality that
it forecasts for the models it chooses is from what they realise (`eccos_core.routing.floor_map`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.errors import ArtifactError
from eccos_core.protocols import Predictor

FILE = "training_forecast.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingForecast:
    """The forecast for S training questions: input_tokens (S,), quality, output_tokens and cost_usd (S, M).

    shared_error (S, M): see `Forecast.shared_error`. cost_usd: NaN for a model whose cost is its price times its
    tokens. observed (S, M): the recorded quality, NaN where missing. It is None if the predictor had seen these
    outcomes.
    """

    models: tuple[str, ...]
    input_tokens: FloatArray
    quality: FloatArray
    shared_error: FloatArray
    output_tokens: FloatArray
    cost_usd: FloatArray
    observed: FloatArray | None = None

    @classmethod
    def of(cls, predictor: Predictor, vectors: Float32Array, input_tokens: FloatArray) -> TrainingForecast:
        """Forecast training questions with these vectors (S, D), by a predictor that has seen their outcomes."""
        if not len(vectors):
            nothing = np.empty((0, len(predictor.models)))
            return cls(predictor.models, np.empty(0), nothing, nothing, nothing, nothing)
        forecast = predictor.predict(vectors, input_tokens)
        cost = forecast.with_recorded_cost(np.full(forecast.quality.shape, np.nan))
        quality, shared = forecast.quality, forecast.shared_error
        return cls(predictor.models, input_tokens, quality, shared, forecast.output_tokens, cost)

    def for_pool(self, models: Sequence[str]) -> TrainingForecast:
        """The same forecast with its columns in this order. You may leave models out."""
        columns = [self.models.index(name) for name in models]
        return TrainingForecast(
            tuple(models),
            self.input_tokens,
            self.quality[:, columns],
            self.shared_error[:, columns],
            self.output_tokens[:, columns],
            self.cost_usd[:, columns],
            None if self.observed is None else self.observed[:, columns],
        )

    def rows(self, index: IntArray) -> TrainingForecast:
        """The forecast of these questions alone."""
        return TrainingForecast(
            self.models,
            self.input_tokens[index],
            self.quality[index],
            self.shared_error[index],
            self.output_tokens[index],
            self.cost_usd[index],
            None if self.observed is None else self.observed[index],
        )

    def save(self, folder: Path) -> None:
        """Write it into the folder of an artifact."""
        from safetensors.numpy import save_file

        arrays = {
            name: np.ascontiguousarray(array, dtype=np.float32)
            for name in _ARRAYS
            if (array := getattr(self, name)) is not None
        }
        save_file(arrays, str(folder / FILE), metadata={"models": json.dumps(self.models)})

    @classmethod
    def load(cls, folder: Path) -> TrainingForecast | None:
        """Read it from the folder of an artifact. None where the predictor was fitted to no outcomes.

        Raises `ArtifactError` for a damaged file.
        """
        from safetensors import SafetensorError, safe_open

        if not (folder / FILE).is_file():
            return None
        try:
            with safe_open(folder / FILE, framework="numpy") as file:
                models = tuple(json.loads(file.metadata()["models"]))
                stored = {name: np.asarray(file.get_tensor(name), dtype=np.float64) for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ArtifactError(f"{folder / FILE}: cannot be read ({error}). Run `eccos fit` again.") from error
        missing = {*_ARRAYS} - {"observed"} - stored.keys()
        if missing:
            raise ArtifactError(f"{folder / FILE}: lacks {', '.join(sorted(missing))}. Run `eccos fit` again.")
        return cls(models, **{name: stored[name] for name in _ARRAYS if name in stored})


_ARRAYS = ("input_tokens", "quality", "shared_error", "output_tokens", "cost_usd", "observed")
