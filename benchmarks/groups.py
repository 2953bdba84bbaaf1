"""Floors for a task that the history lacks, and what `confidence` changes: `python benchmarks/groups.py`.

Each category (mix9) or dataset (the other sets) of the training rows is left out once. A linear predictor is fitted on
the others, on static vectors. You ask for eleven floors, from the mean quality of the cheapest model in the history to
that of the best one, each over all rows of the group as one batch. A floor is missed if the group realises more than
five points less. A floor that the forecast cannot reach is refused. Both are shares of the floors that you ask for, and
"mean" is realised minus asked in points, over the floors that are not refused.

"nearness" looks at distance alone. Familiarity was that before groups were left out to fit it. "in distribution" is for
the test rows and a predictor of all training rows. The last column is the squared error of groups left out by the fit
itself, over that of the prior.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, OutcomeTable, QualityFloor
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.kept_promises import FLOOR_COUNT
from eccos_core.evaluation.metrics import RecordedOutcomes, lambda_grid, operating_points, sweep
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import EnsemblePredictor, fit_predictor
from eccos_core.routing.lower_bound import counted_quality

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = {"qa_math_mix9": "category", "llmrouter_dcrouter": "dataset", "judged_mix4": "dataset"}
CONFIDENCE = 0.9
MISSED_BY = 0.05
MIN_ROWS = 50  # of a group: the mean of fewer answers is too noisy to miss a floor by five points


@dataclass(frozen=True, eq=False)
class Asked:
    """Realised minus asked (F,), NaN for a refused floor. nearness, familiarity: means over the rows.

    unsupported: see `GroupErrorModel`.
    """

    plain: FloatArray
    confident: FloatArray
    nearness: float
    familiarity: float
    unsupported: float


def measure(
    predictor: EnsemblePredictor, history: OutcomeTable, rows: OutcomeTable, vectors: Float32Array, prices: PriceTable
) -> Asked:
    """Ask for floors on rows with vectors (N, D)."""
    read = filled_input_tokens(rows)
    forecast = predictor.predict(vectors, read.mean(axis=1))
    cost = prices.cost_usd(read, forecast.output_tokens)
    recorded = RecordedOutcomes(rows.models, rows.quality, prices.recorded_cost_usd(rows), ~np.isnan(rows.quality))
    cheapest = int(np.nanmean(prices.recorded_cost_usd(history), axis=0).argmin())
    mean = np.nanmean(history.quality, axis=0)
    floors = np.linspace(mean[cheapest], mean.max(), FLOOR_COUNT)

    def difference(quality: FloatArray) -> FloatArray:
        choices = sweep(quality, cost, recorded.observed, lambda_grid(np.where(recorded.observed, cost, 0.0)))
        promised, first = np.unique(quality[np.arange(len(rows)), choices].mean(axis=1), return_index=True)
        accuracy = operating_points(choices, recorded)[1][first]
        return np.where(floors <= promised[-1], np.interp(floors, promised, accuracy) - floors, np.nan)

    assert predictor.index is not None
    index = predictor.index
    nearness = index.nearness.score(index.distance(index.query(vectors, read.mean(axis=1))))
    confident = counted_quality(forecast.quality, forecast.shared_error, QualityFloor(0.0, confidence=CONFIDENCE))
    unsupported = predictor.head.group_errors.unsupported
    return Asked(
        difference(forecast.quality), difference(confident), nearness.mean(), forecast.familiarity.mean(), unsupported
    )


def line(name: str, found: list[Asked]) -> str:
    """One row of the table."""
    plain, confident = (np.stack([getattr(each, side) for each in found]) for side in ("plain", "confident"))

    def shares(differences: FloatArray) -> str:
        missed, refused = (differences < -MISSED_BY).mean(), np.isnan(differences).mean()
        return f"{missed:.0%} | {100 * np.nanmean(differences):+.1f} | {refused:.0%}"

    missed = (plain < -MISSED_BY).sum(axis=1)
    scores = [np.array([getattr(each, side) for each in found]) for side in ("nearness", "familiarity")]
    where_missed = [f"{np.average(each, weights=missed):.2f}" if missed.any() else "-" for each in scores]
    unsupported = np.mean([each.unsupported for each in found])
    cells = [name, shares(plain), shares(confident), *where_missed, f"{scores[1].mean():.2f}", f"{unsupported:.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table."""
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    print(
        "| rows | missed | mean | refused | confidence 0.9: missed | mean | refused | nearness where missed | "
        "familiarity where missed | familiarity | error over the prior's |"
    )
    print("|---" * 11 + "|")
    for name, label in SETS.items():
        train, test = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
        file = DATA / f"{name}.prices.json"
        prices = PriceTable.of(read_prices(file, train.models) if file.exists() else {}, train)
        vectors = encoder.encode(train.queries)
        groups = np.array([str(value) for value in train.labels[label]])
        found = []
        for group in sorted(set(groups)):
            own = groups == group
            if own.sum() < MIN_ROWS:
                continue
            history = train.rows(~own)
            predictor = fit_predictor("linear", history, vectors[~own])
            found.append(measure(predictor, history, train.rows(own), vectors[own], prices))
        print(line(f"{name}, {len(found)} groups left out", found), flush=True)
        everything = measure(fit_predictor("linear", train, vectors), train, test, encoder.encode(test.queries), prices)
        print(line(f"{name}, in distribution", [everything]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
