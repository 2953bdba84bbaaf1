"""What is known of a model before reading the question: its mean quality and its mean length, shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.errors import InputError, UnknownModelError

POOL_WEIGHT = 2.0  # outcomes that the pool's mean is worth, for a model with outcomes of its own
PRIOR_WEIGHT = 20.0  # outcomes that a declared prior is worth
TYPICAL_OUTPUT_TOKENS = 256.0  # expected of a model when nobody ever counted any
HIGH_QUANTILE = 0.9
HIGH_OVER_TYPICAL = 4.0  # how far the 0.9 quantile lies above, when nobody ever counted any


@dataclass(frozen=True, slots=True)
class ModelPrior:
    """What is assumed of a model with few outcomes or none: like another model of the pool, or a mean quality.

    Exactly one is given. It counts as much as 20 outcomes, so that real ones soon outweigh it.
    """

    assume_like: str | None = None
    assumed_quality: float | None = None

    def __post_init__(self) -> None:
        if (self.assume_like is None) == (self.assumed_quality is None):
            raise InputError("a model's prior needs exactly one of assume_like and assumed_quality")
        if self.assumed_quality is not None and not 0 <= self.assumed_quality <= 1:
            raise InputError(f"assumed_quality is {self.assumed_quality}, must be in [0, 1]")


def check_priors(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> None:
    """Raises `InputError` for a model with neither outcomes nor a prior, and `UnknownModelError` for a wrong name.

    A chain of `assume_like` must end at a model with outcomes or with an assumed quality.
    """
    counts = dict(zip(table.models, (~np.isnan(table.quality)).sum(axis=0).tolist(), strict=True))
    for name, prior in priors.items():
        if name not in counts:
            raise UnknownModelError(name, table.models)
        if prior.assume_like is not None and prior.assume_like not in counts:
            raise UnknownModelError(prior.assume_like, table.models)
    for name in table.models:
        seen, at = [name], name
        while counts[at] == 0:
            declared = priors.get(at)
            if declared is None:
                like = f" (by way of {' -> '.join(seen)})" if len(seen) > 1 else ""
                raise InputError(
                    f"model {name!r} has no outcome to learn from{like}: collect some (`eccos collect`), or say what "
                    "to expect with assume_like: OTHER-MODEL or assumed_quality: 0.0 to 1.0"
                )
            if declared.assume_like is None:
                break
            at = declared.assume_like
            if at in seen:
                raise InputError(
                    f"assume_like goes in a circle: {' -> '.join([*seen, at])}; one of them needs outcomes"
                )
            seen.append(at)


def role_models(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> dict[int, int]:
    """Column of a model -> column of the model that it is assumed to be like."""
    column = {name: index for index, name in enumerate(table.models)}
    return {column[name]: column[p.assume_like] for name, p in priors.items() if p.assume_like is not None}


def order_of_models(likes: Mapping[int, int], models: int) -> list[int]:
    """The M columns so that a model comes after the one that it is assumed to be like (circles broken anywhere)."""
    ordered: list[int] = []

    def visit(column: int, above: tuple[int, ...]) -> None:
        if column in ordered or column in above:
            return
        if column in likes:
            visit(likes[column], (*above, column))
        if column not in ordered:
            ordered.append(column)

    for column in range(models):
        visit(column, ())
    return ordered


def shrunk_means(
    values: FloatArray,
    likes: Mapping[int, int],
    assumed: Mapping[int, float],
    fallback: float,
    pool_weight: float = POOL_WEIGHT,
) -> FloatArray:
    """(M,) means of the known cells of values (N, M), NaN unknown, each drawn towards its prior.

    The prior of a column is its assumed value, the mean of the column it is like, or the mean over columns (worth
    `pool_weight` outcomes), or `fallback` where nothing is known at all. Without outcomes the prior stands alone.
    """
    counts = (~np.isnan(values)).sum(axis=0)
    sums = np.nansum(values, axis=0)
    seen = counts > 0
    pool = float((sums[seen] / counts[seen]).mean()) if seen.any() else fallback
    means = np.full(values.shape[1], pool)
    for column in order_of_models(likes, values.shape[1]):
        if column in assumed:
            prior, weight = assumed[column], PRIOR_WEIGHT
        elif column in likes:
            prior, weight = float(means[likes[column]]), PRIOR_WEIGHT
        else:
            prior, weight = pool, pool_weight
        total = counts[column] + weight
        means[column] = (sums[column] + weight * prior) / total if total > 0 else prior
    return means
