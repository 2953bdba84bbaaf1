"""Measure whether floors are kept, without and with the map of floors: `python benchmarks/floors.py`.

A hybrid on static vectors is fitted on the training rows of each set in `../shared/data`, on all of them or on draws of
300. You ask for eleven floors from the accuracy of the cheapest model to that of the best one, each over all test rows
as one batch. A difference is realised minus asked, in points. "noise" is the standard error of the realised mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, OutcomeTable
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.kept_promises import CLOSE, FLOOR_COUNT
from eccos_core.evaluation.metrics import RecordedOutcomes, lambda_grid, operating_points, sweep
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import fit_predictor
from eccos_core.routing.floor_map import fit_floor_map

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "judged_mix4", "openhands34", "routellm_mmlu", "routellm_gsm8k")
FEW = 300


@dataclass(frozen=True, eq=False)
class Differences:
    """Realised minus asked (F,), without and with the map. noise: the standard error of a realised mean."""

    without: FloatArray
    mapped: FloatArray
    noise: float


def measure(
    train: OutcomeTable, vectors: Float32Array, test: OutcomeTable, test_vectors: Float32Array, prices: PriceTable
) -> Differences:
    """Fit on the training rows, and ask for floors on the test rows."""
    predictor = fit_predictor("hybrid", train, vectors)
    held_out = predictor.training
    assert held_out is not None
    assert held_out.observed is not None
    tokens = np.repeat(held_out.input_tokens[:, None], len(train.models), axis=1)
    by_tokens = prices.cost_usd(tokens, held_out.output_tokens)
    held_out_cost = np.where(np.isnan(held_out.cost_usd), by_tokens, held_out.cost_usd)
    fitted = fit_floor_map(held_out.quality, held_out_cost, held_out.observed)
    read = filled_input_tokens(test)
    forecast = predictor.predict(test_vectors, read.mean(axis=1))
    cost = forecast.with_recorded_cost(prices.cost_usd(read, forecast.output_tokens))
    recorded = RecordedOutcomes(test.models, test.quality, prices.recorded_cost_usd(test), ~np.isnan(test.quality))
    choices = sweep(forecast.quality, cost, recorded.observed, lambda_grid(np.where(recorded.observed, cost, 0.0)))
    rows = np.arange(len(test))
    promised, first = np.unique(forecast.quality[rows, choices].mean(axis=1), return_index=True)
    accuracy = operating_points(choices, recorded)[1][first]
    single = recorded.single_accuracy
    asked = np.linspace(single[recorded.cheapest_single], single[recorded.best_single], FLOOR_COUNT)

    def difference(to_forecast: Callable[[float], float]) -> FloatArray:
        wanted = np.array([to_forecast(floor) for floor in asked])
        reached = wanted <= promised[-1]
        return np.interp(wanted[reached], promised, accuracy) - asked[reached]

    middle = choices[len(choices) // 2]
    noise = float(np.std(test.quality[rows, middle] - forecast.quality[rows, middle])) / np.sqrt(len(test))
    return Differences(difference(lambda floor: floor), difference(fitted.to_forecast), noise)


def line(name: str, rows: str, found: list[Differences]) -> str:
    """One row of the table."""
    noise = np.mean([each.noise for each in found])
    cells = [name, rows, f"{100 * noise:.1f}"]
    for side in ("without", "mapped"):
        differences = np.concatenate([getattr(each, side) for each in found])
        close = (np.abs(differences) <= CLOSE).mean()
        cells += [f"{close:.0%}", f"{100 * differences.mean():+.2f}", f"{100 * differences.min():+.1f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help=f"of {FEW} training rows")
    draws = parser.parse_args().draws
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    print("| set | rows | noise | within 1 | mean | worst | mapped: within 1 | mean | worst |")
    print("|---|---|---|---|---|---|---|---|---|")
    full: list[Differences] = []
    few: list[Differences] = []
    for name in SETS:
        train, test = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
        file = DATA / f"{name}.prices.json"
        prices = PriceTable.of(read_prices(file, train.models) if file.exists() else {}, train)
        vectors, test_vectors = encoder.encode(train.queries), encoder.encode(test.queries)
        everything = measure(train, vectors, test, test_vectors, prices)
        full.append(everything)
        print(line(name, "all", [everything]), flush=True)
        drawn = []
        for draw in range(draws):
            rows = np.random.default_rng(draw).choice(len(train), min(FEW, len(train)), replace=False)
            drawn.append(measure(train.rows(rows), vectors[rows], test, test_vectors, prices))
        few += drawn
        print(line(name, f"{FEW}, {draws} draws", drawn), flush=True)
    print(line("together", "all", full))
    print(line("together", f"{FEW}", few))
    return 0


if __name__ == "__main__":
    sys.exit(main())
