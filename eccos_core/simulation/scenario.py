"""What is simulated: recorded outcomes, forecasts of them, and how long each model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, OutcomeTable
from eccos_core.errors import InputError


@dataclass(frozen=True, slots=True)
class Service:
    """How a model serves: `slots` requests at once, the first token after `first_token_s`, then `tokens_per_s`."""

    slots: int = 8
    first_token_s: float = 0.5
    tokens_per_s: float = 60.0

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise InputError(f"a model with {self.slots} slots serves nobody, must be >= 1")
        if self.tokens_per_s <= 0 or self.first_token_s < 0:
            raise InputError(f"a model that gives {self.tokens_per_s} tokens/s after {self.first_token_s} s cannot be")


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """quality in [0, 1] and cost_usd, (N, M)."""

    quality: FloatArray
    cost_usd: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """N requests, M models. What happened: quality, cost_usd, seconds (N, M); what was forecast for these requests; and
    forecasts of other requests (the training set), from which prices are learned.

    eligible (N, M): False where a model's answer was not recorded. slots (M,).
    """

    models: tuple[str, ...]
    quality: FloatArray
    cost_usd: FloatArray
    seconds: FloatArray
    eligible: BoolArray
    slots: IntArray
    forecast: Forecasts
    training: Forecasts

    @property
    def requests(self) -> int:
        """N, how many requests arrive."""
        return len(self.quality)

    def mean_rate(self, load: float) -> float:
        """Requests per second that keep a share `load` of all slots busy when every model gets what it can serve."""
        seconds = np.where(self.eligible, self.seconds, np.nan)
        each = self.slots / np.nanmean(seconds, axis=0)  # (M,) requests per second that one model can serve
        return float(load * each.sum())


def scenario_of(
    outcomes: OutcomeTable,
    usd_per_token: Mapping[str, tuple[float, float]],
    forecast: Forecasts,
    training: Forecasts,
    service: Mapping[str, Service] | Service,
) -> Scenario:
    """A scenario from recorded outcomes; usd_per_token: (input, output) by model. `service`: one for all, or by model.

    Raises `InputError` when the outcomes have no output tokens: service times are proportional to them.
    """
    if not np.isfinite(outcomes.output_tokens).any():
        raise InputError(
            "the outcomes have no output tokens, to which service times are proportional; nothing to simulate"
        )
    known = np.isfinite(outcomes.quality)
    by_model = [service if isinstance(service, Service) else service[name] for name in outcomes.models]
    output = _filled(outcomes.output_tokens)
    read = _filled(outcomes.input_tokens) if np.isfinite(outcomes.input_tokens).any() else np.zeros(known.shape)
    price = np.array([usd_per_token[name] for name in outcomes.models])
    first = np.array([one.first_token_s for one in by_model])
    pace = np.array([one.tokens_per_s for one in by_model])
    rows = known.any(axis=1)
    if not rows.all():
        raise InputError(f"{int((~rows).sum())} of the requests have no recorded answer at all; leave them out")
    return Scenario(
        models=outcomes.models,
        quality=np.where(known, outcomes.quality, 0.0),
        cost_usd=read * price[:, 0] + output * price[:, 1],
        seconds=first + output / pace,
        eligible=known,
        slots=np.array([one.slots for one in by_model], dtype=np.int64),
        forecast=forecast,
        training=training,
    )


def _filled(tokens: FloatArray) -> FloatArray:
    """Missing counts replaced by the model's mean; a model without any count gets the mean of all."""
    mean = np.array(
        [column[np.isfinite(column)].mean() if np.isfinite(column).any() else np.nan for column in tokens.T]
    )
    mean = np.where(np.isfinite(mean), mean, np.nanmean(tokens))
    return np.where(np.isfinite(tokens), tokens, mean)
