"""Find models that are nearly copies of another one, such as its quantised variants, and forecast them with care.

A copy costs about what its base costs, and is about as good. So whoever takes the best forecast of both takes the one
that was lucky on the training rows: the winner's curse. A copy is therefore forecast by the lower end of an interval
around its difference to the base, which outcomes of the same questions show. It is preferred once they show that it is
better, or where it is cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.targets.prior import PRIOR_ROWS

COPY_CORRELATION = 0.9  # quantised models have .94 and more with their base, models of one pool up to .6
STANDARD_ERRORS = 1.5  # below the difference. Chosen on folds of training rows of pocket pools, of 0 to 2
_FEWEST_ROWS = 20  # questions that both answered


def find_copies(quality: FloatArray, similar: Mapping[int, int]) -> dict[int, int]:
    """Map the column of each near copy to that of its base, from outcomes (N, M), NaN where unknown.

    similar: the base of a column where one is declared, as `similar_columns` returns it. Otherwise it is the column
    before it that is most like it, and no copy itself.
    """
    known = ~np.isnan(quality)
    counts = known.T.astype(np.float64) @ known
    means = np.where(known, quality, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, quality - means, 0.0)
    squares = (centred**2).T @ known  # (M, M): of a row's model, over the questions that both answered
    correlation = centred.T @ centred / np.sqrt(np.maximum(squares * squares.T, 1e-18))
    alike = (correlation >= COPY_CORRELATION) & (counts >= _FEWEST_ROWS)
    copies: dict[int, int] = {}
    for column in range(quality.shape[1]):
        if column in similar and alike[column, similar[column]] and similar.get(similar[column]) != column:
            copies[column] = similar[column]
            continue
        bases = [other for other in np.flatnonzero(alike[column, :column]).tolist() if other not in copies]
        if column not in similar and column not in similar.values() and bases:
            copies[column] = max(bases, key=lambda other: float(correlation[column, other]))
    return copies


def cautious_means(quality: FloatArray, means: FloatArray, similar: Mapping[int, int]) -> FloatArray:
    """Return the means (M,) with those of near copies moved down, so that chance does not put them before their base.

    The difference to the base is the mean over the questions that both answered (N), shrunk by 20 rows without a
    difference. 1.5 of its standard errors are taken off.
    """
    careful = means.copy()
    copies = find_copies(quality, similar)
    for column in copies:
        base, careful[column] = column, 0.0
        while base in copies:  # a copy of a copy
            difference = quality[:, base] - quality[:, copies[base]]
            careful[column] += _lower_end(difference[~np.isnan(difference)])
            base = copies[base]
        careful[column] += means[base]
    return np.clip(careful, 0.0, 1.0)


def _lower_end(differences: FloatArray) -> float:
    rows = len(differences) + PRIOR_ROWS
    mean = float(differences.sum()) / rows
    variance = (float(((differences - mean) ** 2).sum()) + PRIOR_ROWS * mean**2) / rows
    return mean - STANDARD_ERRORS * float(np.sqrt(variance / rows))
