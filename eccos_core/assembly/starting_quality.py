"""What to expect of a model that nobody graded yet, and where that number comes from.

In this order: outcomes, `assumed_quality`, `assume_like`, public benchmark results, the rank of the price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.assembly.effort_priors import tie_efforts
from eccos_core.assembly.public_results import find_public_result
from eccos_core.config import Config, PoolEntry
from eccos_core.domain import OutcomeTable, QualitySource
from eccos_core.io.outcome_tables import with_models

if TYPE_CHECKING:
    from eccos_core.predictors import ModelPrior

CHEAPEST, DEAREST = 0.55, 0.8  # assumed of the ends of a pool's price list, where nothing else is known
_LOWEST, _HIGHEST = 0.02, 0.98  # of an assumed quality: nothing is certain before the first outcome


def declared_priors(config: Config) -> dict[str, ModelPrior]:
    """Return what the configuration says of its models: `assumed_quality` and `assume_like`."""
    from eccos_core.predictors import ModelPrior

    return {
        entry.model.name: ModelPrior(assume_like=entry.assume_like, assumed_quality=entry.assumed_quality)
        for entry in config.pool
        if entry.assume_like is not None or entry.assumed_quality is not None
    }


def starting_priors(config: Config, table: OutcomeTable) -> dict[str, ModelPrior]:
    """Return the declared priors, and one for each other model without outcomes in the table.

    Efforts of one deployment are tied together. Benchmark scores are moved, in logits, to the scale of the models
    whose quality is known. Those of the pool then have the mean that their outcomes or the file gives them.
    """
    from eccos_core.predictors import ModelPrior

    priors = declared_priors(config)
    known = {name: prior.assumed_quality for name, prior in priors.items() if prior.assumed_quality is not None}
    known |= _mean_qualities(config, table)
    scores = {entry.model.name: score for entry in config.pool if (score := _public_score(entry)) is not None}
    shifts = [_logit(known[name]) - _logit(score) for name, score in scores.items() if name in known]
    shift = float(np.mean(shifts)) if shifts else 0.0
    for name, score in scores.items():
        if name not in known and name not in priors:
            known[name] = _clip(1 / (1 + np.exp(-_logit(score) - shift)))
            priors[name] = ModelPrior(assumed_quality=known[name])
    unknown = [entry.model.name for entry in config.pool if entry.model.name not in known | priors]
    by_price = _quality_by_price(config, list(known.values())) if unknown else {}
    priors |= {name: ModelPrior(assumed_quality=by_price[name]) for name in unknown}
    return tie_efforts(config.pool, priors, _count_outcomes(config, table))


def ungraded_priors(config: Config) -> dict[str, ModelPrior]:
    """Return the priors of a pool in which no model has outcomes."""
    names, none = tuple(model.name for model in config.models), np.empty((0, len(config.models)))
    return starting_priors(config, OutcomeTable((), (), names, none, none, none))


def quality_sources(config: Config, graded: frozenset[str] | None) -> tuple[QualitySource, ...]:
    """Return where each model's forecast starts from (M,). `graded`: the models with outcomes, None for all."""
    tied = {m.effort_of for m in config.models if m.effort_of and graded is not None and m.name in graded}
    sources: list[QualitySource] = []
    for entry in config.pool:
        if graded is None or entry.model.name in graded:
            sources.append("outcomes")
        else:
            sources.append("assume_like" if entry.model.effort_of in tied else starting_source(entry))
    return tuple(sources)


def starting_source(entry: PoolEntry) -> QualitySource:
    """Return where the quality of a model without outcomes comes from."""
    if entry.assumed_quality is not None:
        return "assumed_quality"
    if entry.assume_like is not None:
        return "assume_like"
    return "public_benchmarks" if _public_score(entry) is not None else "price_rank"


def _mean_qualities(config: Config, table: OutcomeTable) -> dict[str, float]:
    names = tuple(entry.model.name for entry in config.pool)
    quality = with_models(table, names).quality
    return {name: float(np.nanmean(q)) for name, q in zip(names, quality.T, strict=True) if not np.isnan(q).all()}


def _count_outcomes(config: Config, table: OutcomeTable) -> dict[str, int]:
    names = tuple(entry.model.name for entry in config.pool)
    known = ~np.isnan(with_models(table, names).quality)
    return dict(zip(names, known.sum(axis=0).tolist(), strict=True))


def _public_score(entry: PoolEntry) -> float | None:
    """Look a model up by LiteLLM's `base_model` and by the model that is called. Its alias in the pool says nothing."""
    names = []
    for deployment in entry.deployments:
        base: Mapping[str, object] = deployment.model_info
        names += [str(base["base_model"])] if isinstance(base.get("base_model"), str) else []
        names.append(deployment.litellm_model)
    found = find_public_result(names)
    return None if found is None else found.score


def _quality_by_price(config: Config, known: Sequence[float]) -> dict[str, float]:
    """Assume that quality rises with the rank of the price, between the ends of what is known of the pool.

    The price is that of an input and an output token together. Equal prices share their mean rank. All efforts of a
    model count as one.
    """
    low, high = (min(known), max(known)) if len(set(known)) > 1 else (CHEAPEST, DEAREST)
    prices = {model.deployment: model.usd_per_input_token + model.usd_per_output_token for model in config.models}
    price = np.array(list(prices.values()))
    below = (price[:, None] > price).sum(axis=1) + ((price[:, None] == price).sum(axis=1) - 1) / 2
    share = below / (len(price) - 1) if len(price) > 1 else np.array([0.5])
    by_deployment = {name: _clip(low + (high - low) * at) for name, at in zip(prices, share, strict=True)}
    return {model.name: by_deployment[model.deployment] for model in config.models}


def _logit(probability: float) -> float:
    inside = _clip(probability)
    return float(np.log(inside / (1 - inside)))


def _clip(probability: float) -> float:
    return float(np.clip(probability, _LOWEST, _HIGHEST))
