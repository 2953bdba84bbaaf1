"""Gets the predictor of a configuration: the one in use, a fitted one from its folder, or one fitted now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eccos_core.assembly.encoder import build_encoder
from eccos_core.assembly.finetuned import is_fine_tuned, load_fine_tuned_parts, reencode
from eccos_core.assembly.history import build_history
from eccos_core.assembly.predictor import (
    TrainingData,
    forecast_training,
    is_online,
    load_fitted,
    load_or_fit,
    online_retrieval,
    same_training_inputs,
)

if TYPE_CHECKING:
    from eccos_core.assembly.assembled import Assembled
    from eccos_core.assembly.predictor import Progress
    from eccos_core.config import Config
    from eccos_core.predictors import TrainingForecast
    from eccos_core.protocols import Encoder, OnlineHistory, Predictor


@dataclass(frozen=True, slots=True, eq=False)
class Forecaster:
    """A predictor, the encoder that requests are read with, and its forecast for training questions."""

    encoder: Encoder
    predictor: Predictor
    training: TrainingForecast

    @classmethod
    def of_history(cls, encoder: Encoder, predictor: Predictor, history: OnlineHistory) -> Forecaster:
        """Forecast questions of a history that the encoder read."""
        return cls(encoder, predictor, forecast_training(predictor, lambda: TrainingData.sample(history)))


def reuse_or_build_forecaster(
    config: Config,
    encoder: Encoder,
    history: OnlineHistory,
    current: Assembled | None = None,
    progress: Progress | None = None,
) -> Forecaster:
    """Get the predictor that the configuration asks for, with the encoder that it reads requests with.

    `encoder` and `history` are those that the configuration names. A fine-tuned predictor has an encoder of its own.
    """
    if is_fine_tuned(config):
        own, fine_tuned = load_fine_tuned_parts(config)
        training = forecast_training(fine_tuned, lambda: reencode(TrainingData.sample(history), own))
        return Forecaster(own, fine_tuned, training)
    predictor: Predictor
    if current is not None and current.history is history and _same_training(current, config):
        predictor = current.parts.predictor
    elif is_online(config):
        predictor = online_retrieval(config, history)
    elif config.predictor.artifact is not None:
        predictor = load_fitted(config, encoder)
    else:
        predictor = load_or_fit(config, encoder, TrainingData.of(history), progress)
    return Forecaster.of_history(encoder, _with_difficulty(predictor, encoder), history)


def build_predictor(
    config: Config, progress: Callable[[str], None] | None = None
) -> tuple[Encoder, Predictor, OnlineHistory]:
    """Build the predictor that a router of this configuration would use, its encoder, and the history.

    Raises as `Assembler.assemble`.
    """
    encoder = build_encoder(config.encoder, config.conversation)
    history = build_history(config.history, encoder)
    forecaster = reuse_or_build_forecaster(config, encoder, history, progress=progress)
    return forecaster.encoder, forecaster.predictor, history


def _with_difficulty(predictor: Predictor, encoder: Encoder) -> Predictor:
    """Let a predictor that learned nothing from questions order them by their general difficulty."""
    from eccos_core.predictors import EnsemblePredictor, with_difficulty

    return with_difficulty(predictor, encoder.name) if isinstance(predictor, EnsemblePredictor) else predictor


def _same_training(current: Assembled, config: Config) -> bool:
    """Whether the predictor in use is also that of the next configuration."""
    all_graded = all(source == "outcomes" for source in current.parts.quality_sources)
    return same_training_inputs(current.config, config, all_graded=all_graded)
