"""The scenario of a simulation: recorded outcomes, forecasts of them, and service times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.routing.floor_map import NO_CORRECTION, FloorMap
from eccos_core.simulation.pool_engine import EngineService, PoolEngine, make_engine


@dataclass(frozen=True, slots=True)
class Service:
    """Serves `slots` requests at once. Each takes `first_token_s`, then `tokens_per_s`."""

    slots: int = 8
    first_token_s: float = 0.5
    tokens_per_s: float = 60.0

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise InputError(f"slots is {self.slots}, must be >= 1")
        if self.tokens_per_s <= 0 or self.first_token_s < 0:
            raise InputError(
                f"tokens_per_s is {self.tokens_per_s} and first_token_s is {self.first_token_s}, must be > 0 and >= 0"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Forecast `quality` in [0, 1] and `cost_usd`, both (N, M)."""

    quality: FloatArray
    cost_usd: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """N requests and M models. `quality`, `cost_usd` and `seconds` (N, M) were recorded.

    `forecast` is of these requests. `training` is of other requests, from which prices are fitted. `eligible` (N, M) is
    False where a model's answer was not recorded, or has no room in its engine. `slots` is (M,). `engines` serve the
    models at these places. Their `seconds` are what is expected while all slots are busy. By `floor_map` the router of
    eccos asks for the forecast at which the floor is realised.
    """

    models: tuple[str, ...]
    quality: FloatArray
    cost_usd: FloatArray
    seconds: FloatArray
    eligible: BoolArray
    slots: IntArray
    forecast: Forecasts
    training: Forecasts
    engines: Mapping[int, PoolEngine] = field(default_factory=dict)
    floor_map: FloorMap = NO_CORRECTION

    @property
    def requests(self) -> int:
        """N, the number of requests."""
        return len(self.quality)

    def mean_rate(self, load: float) -> float:
        """Return the arrival rate, in requests per second, that keeps a share `load` of all slots busy."""
        seconds = np.where(self.eligible, self.seconds, np.nan)
        service_rate = self.slots / np.nanmean(seconds, axis=0)  # (M,) requests per second
        return float(load * service_rate.sum())


def scenario_of(
    outcomes: OutcomeTable,
    usd_per_token: Mapping[str, tuple[float, float]],
    forecast: Forecasts,
    training: Forecasts,
    service: Mapping[str, Service | EngineService] | Service,
    past: OutcomeTable | None = None,
) -> Scenario:
    """Build a scenario from recorded outcomes.

    `usd_per_token` has (input, output) prices by model, `service` is one for all models or one for each. From `past`
    the schedulers of engines learn how long answers become (default: from the outcomes). Raises `InputError` when the
    outcomes have no output tokens, to which service times are proportional, and when no model can serve a request.
    """
    if not np.isfinite(outcomes.output_tokens).any():
        raise InputError(
            "the outcomes have no output tokens, to which service times are proportional; nothing to simulate"
        )
    known = np.isfinite(outcomes.quality)
    by_model = [service if isinstance(service, Service) else service[name] for name in outcomes.models]
    output = _fill_missing(outcomes.output_tokens)
    input_tokens = _input_tokens(outcomes)
    price = np.array([usd_per_token[name] for name in outcomes.models])
    rows = known.any(axis=1)
    if not rows.all():
        raise InputError(f"{int((~rows).sum())} of the requests have no recorded answer at all; leave them out")
    seconds, eligible, engines = np.empty(known.shape), known.copy(), {}
    learnt = outcomes if past is None or not np.isfinite(past.output_tokens).any() else past
    for model, one in enumerate(by_model):
        if isinstance(one, Service):
            seconds[:, model] = one.first_token_s + output[:, model] / one.tokens_per_s
            continue
        before = _input_tokens(learnt)[:, model], _fill_missing(learnt.output_tokens)[:, model]
        engines[model] = make_engine(one, (input_tokens[:, model], output[:, model]), before)
        seconds[:, model] = engines[model].expected_seconds()
        eligible[:, model] &= engines[model].fits
    if not eligible.any(axis=1).all():
        raise InputError(
            f"{int((~eligible.any(axis=1)).sum())} of the requests fit into no engine, and no other model has an "
            "answer to them. Raise kv_tokens, or add a model without an engine."
        )
    return Scenario(
        models=outcomes.models,
        quality=np.where(known, outcomes.quality, 0.0),
        cost_usd=input_tokens * price[:, 0] + output * price[:, 1],
        seconds=seconds,
        eligible=eligible,
        slots=np.array(
            [engines[at].slots if at in engines else one.slots for at, one in enumerate(by_model)], dtype=np.int64
        ),
        forecast=forecast,
        training=training,
        engines=engines,
    )


def _input_tokens(outcomes: OutcomeTable) -> FloatArray:
    if not np.isfinite(outcomes.input_tokens).any():
        return np.zeros(outcomes.input_tokens.shape)
    return _fill_missing(outcomes.input_tokens)


def _fill_missing(tokens: FloatArray) -> FloatArray:
    """Replace missing counts by the model's mean. A model without any count gets the mean of all."""
    mean = np.array(
        [column[np.isfinite(column)].mean() if np.isfinite(column).any() else np.nan for column in tokens.T]
    )
    mean = np.where(np.isfinite(mean), mean, np.nanmean(tokens))
    return np.where(np.isfinite(tokens), tokens, mean)
