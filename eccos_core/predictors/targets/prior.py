"""Estimate a model's mean quality and mean length, shrunk towards a prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.errors import InputError, UnknownModelError

POOL_ROWS = 2.0  # pseudo-outcomes that shrink a model's mean towards the pool's mean
PRIOR_ROWS = 20.0  # pseudo-outcomes that a declared prior is worth
TYPICAL_OUTPUT_TOKENS = 256.0  # mean of every model, if no tokens were counted
MARGIN = 0.01  # an assumed mean quality is kept this far from 0 and 1 before it is moved
HIGH_QUANTILE = 0.9
HIGH_QUANTILE_OVER_MEAN = 4.0  # if no tokens were counted


@dataclass(frozen=True, slots=True)
class ModelPrior:
    """What to assume of a model with few outcomes: that it is like another model, or a mean quality.

    Give exactly one. It counts as 20 outcomes, so real outcomes soon outweigh it. A model that is like another may be
    somewhat better and longer: `log_odds` is added to the log-odds of a good answer, and `length_ratio` multiplies the
    output tokens.
    """

    assume_like: str | None = None
    assumed_quality: float | None = None
    log_odds: float = 0.0
    length_ratio: float = 1.0

    def __post_init__(self) -> None:
        if (self.assume_like is None) == (self.assumed_quality is None):
            raise InputError("a model's prior needs exactly one of assume_like and assumed_quality")
        if self.assumed_quality is not None and not 0 <= self.assumed_quality <= 1:
            raise InputError(f"assumed_quality is {self.assumed_quality}, must be in [0, 1]")
        if not (math.isfinite(self.log_odds) and 0 < self.length_ratio < math.inf):
            raise InputError(f"log_odds {self.log_odds} and length_ratio {self.length_ratio} must be finite, and > 0")

    def move_quality(self, quality: float) -> float:
        """Return the mean quality of this model, of the quality of the model that it is like."""
        if self.log_odds == 0.0:
            return quality
        inside = min(max(quality, MARGIN), 1 - MARGIN)
        return 1 / (1 + math.exp(-math.log(inside / (1 - inside)) - self.log_odds))


def check_priors(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> None:
    """Check that every model has outcomes or a prior.

    A chain of `assume_like` must end at a model with outcomes, or with an assumed quality. Raises `InputError`
    otherwise, and `UnknownModelError` for a name that is not in the table.
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


def similar_columns(table: OutcomeTable, priors: Mapping[str, ModelPrior]) -> dict[int, int]:
    """Map a model's column to the column of the model that it is assumed to be like."""
    column = {name: index for index, name in enumerate(table.models)}
    return {column[name]: column[p.assume_like] for name, p in priors.items() if p.assume_like is not None}


def dependency_order(similar: Mapping[int, int], models: int) -> list[int]:
    """Sort M columns so that a model comes after the one that it is assumed to be like. Circles break anywhere."""
    ordered: list[int] = []

    def visit(column: int, path: tuple[int, ...]) -> None:
        if column in ordered or column in path:
            return
        if column in similar:
            visit(similar[column], (*path, column))
        if column not in ordered:
            ordered.append(column)

    for column in range(models):
        visit(column, ())
    return ordered


def shrunk_means(
    values: FloatArray,
    similar: Mapping[int, int],
    assumed: Mapping[int, float],
    fallback: float,
    pool_rows: float = POOL_ROWS,
    move: Mapping[int, Callable[[float], float]] | None = None,
) -> FloatArray:
    """Return the means (M,) of values (N, M), NaN where unknown, each shrunk towards its prior.

    The prior of a column is its assumed value, or the mean of a similar column. Both count as 20 rows. Otherwise it is
    the mean over columns, which counts as `pool_rows`, or `fallback` if no column has a value. `move` says how the mean
    of a column follows from that of the similar one, where they are not the same.
    """
    counts = (~np.isnan(values)).sum(axis=0)
    sums = np.nansum(values, axis=0)
    seen = counts > 0
    pool = float((sums[seen] / counts[seen]).mean()) if seen.any() else fallback
    means = np.full(values.shape[1], pool)
    for column in dependency_order(similar, values.shape[1]):
        if column in assumed:
            prior, weight = assumed[column], PRIOR_ROWS
        elif column in similar:
            prior, weight = float(means[similar[column]]), PRIOR_ROWS
            prior = move[column](prior) if move and column in move else prior
        else:
            prior, weight = pool, pool_rows
        total = counts[column] + weight
        means[column] = (sums[column] + weight * prior) / total if total > 0 else prior
    return means
