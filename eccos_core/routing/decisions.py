"""Why this model: an assignment told as decisions, with the runner-up and the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from eccos_core.certification import Certificate
from eccos_core.domain import (
    BoolArray,
    Decision,
    FloatArray,
    Forecast,
    IntArray,
    Prices,
    QualitySource,
    Request,
    new_id,
)
from eccos_core.routing.certified import follows_rule

_STARTS: Mapping[QualitySource, str] = {
    "assumed_quality": "assumed_quality in the configuration",
    "assume_like": "the model that it is assumed to be like",
    "public_benchmarks": "public benchmark results",
    "price_rank": "the rank of its price",
}
UNFAMILIAR = 0.2  # below this familiarity the reason says that the forecast is mostly the prior


def scores(quality: FloatArray, cost_usd: FloatArray, eligible: BoolArray, prices: Prices) -> FloatArray:
    """cost - lambda * quality + mu, (R, M) USD: what each request minimises alone; infinite where not eligible."""
    return np.where(eligible, cost_usd - prices.quality * quality + prices.slots, np.inf)


def build_decisions(
    requests: Sequence[Request],
    forecast: Forecast,
    cost_usd: FloatArray,
    eligible: BoolArray,
    chosen: IntArray,
    prices: Prices,
    *,
    floor_met: bool = True,
    overhead_s: float = 0.0,
    certificate: Certificate | None = None,
    sources: Sequence[QualitySource] = (),
    waiting_usd: FloatArray | float = 0.0,
    counted_quality: FloatArray | None = None,
) -> list[Decision]:
    """One `Decision` per request. cost_usd (R, M), eligible (R, M), chosen (R,); overhead_s is per request.
    waiting_usd (M,): what waiting counts beside the cost. counted_quality (R, M): what the policy counts on, if that
    is not the forecast.

    Fallbacks are the other eligible models in the order of the same row's scores, so that a failure goes to the
    next best under the same policy.
    """
    weighed, counted = cost_usd + waiting_usd, forecast.quality if counted_quality is None else counted_quality
    order = np.argsort(scores(counted, weighed, eligible, prices), axis=1, kind="stable").tolist()
    candidates = eligible.sum(axis=1).tolist()
    # plain Python numbers: indexing arrays one element at a time is what would take the time here
    quality, errors, costs = forecast.quality.tolist(), forecast.quality_se.tolist(), cost_usd.tolist()
    familiarity, models = forecast.familiarity.tolist(), forecast.models
    graded: list[QualitySource] = ["outcomes"] * len(models)
    starts = sources or graded
    certified = _certified(forecast.quality, cost_usd, chosen, certificate)
    waits = np.broadcast_to(waiting_usd, len(models)).tolist()
    made = []
    for row, (request, best) in enumerate(zip(requests, chosen.tolist(), strict=True)):
        others = [column for column in order[row][: candidates[row]] if column != best]
        runner_up = others[0] if others else None
        made.append(
            Decision(
                id=new_id(),
                request_id=request.id,
                model=models[best],
                quality=quality[row][best],
                quality_se=errors[row][best],
                cost_usd=costs[row][best],
                runner_up=None if runner_up is None else models[runner_up],
                reason=_reason(models, quality[row], costs[row], best, runner_up, familiarity[row], waits)
                + _describe_start(models[best], starts[best], errors[row][best]),
                fallbacks=tuple([models[column] for column in others]),
                familiarity=familiarity[row],
                floor_met=floor_met,
                usd_per_quality=prices.quality,
                overhead_s=overhead_s,
                certified=certified[row],
                quality_source=starts[best],
            )
        )
    return made


def _certified(
    quality: FloatArray, cost_usd: FloatArray, chosen: IntArray, certificate: Certificate | None
) -> list[bool]:
    if certificate is None or certificate.usd_per_quality is None:
        return [False] * len(chosen)
    follows: list[bool] = follows_rule(quality, cost_usd, chosen, certificate.usd_per_quality).tolist()
    return follows


def _reason(
    models: Sequence[str],
    quality: Sequence[float],
    cost: Sequence[float],
    best: int,
    runner_up: int | None,
    familiarity: float,
    waiting_usd: Sequence[float],
) -> str:
    said = (
        f"{models[best]} is expected to answer well with probability {quality[best]:.2f} for {format_usd(cost[best])}"
    )
    if runner_up is None:
        said += "; no other model may answer this"
    else:
        gained, extra = quality[runner_up] - quality[best], cost[runner_up] - cost[best]
        more = f"{format_usd(extra)} more" if extra >= 0 else f"{format_usd(-extra)} less"
        said += f"; {models[runner_up]}, the runner-up, would change that by {gained:+.2f} for {more}"
    if waiting_usd[best] > 0:
        said += f"; waiting for it counts {format_usd(waiting_usd[best])}"
    if familiarity < UNFAMILIAR:
        said += "; nothing in the history is like this request, so this is mostly each model's average"
    return said + "."


def _describe_start(model: str, source: QualitySource, standard_error: float) -> str:
    """Say what the forecast of a model without outcomes rests on, and how unsure it is."""
    if source == "outcomes":
        return ""
    return (
        f" No answer of {model} was graded yet: its quality comes from {_STARTS[source]} (standard error "
        f"{standard_error:.2f})."
    )


def format_usd(amount: float) -> str:
    """An amount for people: three significant digits, never in scientific notation (0.00000123 USD)."""
    if amount == 0:
        return "0 USD"
    digits = max(2, 2 - math.floor(math.log10(abs(amount))))
    return f"{amount:.{digits}f} USD"
