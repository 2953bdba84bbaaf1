"""Certified floors on recorded outcomes: how often a certificate is wrong, and what it costs.

`python benchmarks/certify.py` fits a hybrid predictor on static embeddings to the training rows of `qa_math_mix9`. Then
it draws labels from the test rows, with replacement, 2,000 times. The test rows are the whole population of this
experiment, so it is known which certificates are false. Cost shares are of the dearest model's recorded cost.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import beta, binom

from eccos_core.certification.mean_tests import STAKES, aimed_stakes
from eccos_core.domain import FloatArray
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import fit_predictor
from eccos_core.routing.certified import choose_by_price
from eccos_core.workflows.certify import PRICES

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZES = (100, 300, 1000, 2000)
LEVEL = 0.05
FLOOR = 0.70
POINTS = 2.0
JUST_BELOW = 0.001  # how far below the floor the hardest rule lies


@dataclass(frozen=True)
class Population:
    """Settings from safe to cheap: quality (T, S) of test rows, that of the dearest model (T,), cost share (S,)."""

    quality: FloatArray
    reference: FloatArray
    cost_share: FloatArray


def load_population() -> Population:
    """Fit, and choose for every test row under every price."""
    table = read_outcomes(DATA / "qa_math_mix9.jsonl.gz")
    train, test = split(table)
    prices = PriceTable.of(read_prices(DATA / "qa_math_mix9.prices.json"), train)
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    predictor = fit_predictor("hybrid", train, encoder.encode(train.queries))
    read = filled_input_tokens(test)
    forecast = predictor.predict(encoder.encode(test.queries), read.mean(axis=1))
    expected = forecast.with_recorded_cost(prices.cost_usd(read, forecast.output_tokens))
    recorded = prices.recorded_cost_usd(test)
    complete = ~np.isnan(test.quality).any(axis=1) & ~np.isnan(recorded).any(axis=1)
    rows = np.arange(len(test))
    choices = [choose_by_price(forecast.quality, expected, price) for price in PRICES]
    different = [choices[0]]
    for chosen in choices[1:]:
        if not np.array_equal(chosen, different[-1]):
            different.append(chosen)
    quality = np.stack([test.quality[rows, chosen] for chosen in different], axis=1)[complete]
    costs = np.stack([recorded[rows, chosen] for chosen in different], axis=1)[complete]
    dearest = int(np.nanmean(recorded[complete], axis=0).argmax())
    print(f"{complete.sum()} test rows, {quality.shape[1]} settings, dearest model {test.models[dearest]}", flush=True)
    share = costs.mean(axis=0) / recorded[complete, dearest].mean()
    return Population(quality, test.quality[complete, dearest], share)


def last_passed(p_values: FloatArray) -> FloatArray:
    """(D,) the last setting before the first failure in each row of p-values (D, S), -1 for none."""
    return np.asarray((np.cumprod(p_values <= LEVEL, axis=1)).sum(axis=1) - 1)


def describe(name: str, labels: int, chosen: FloatArray, truth: FloatArray, limit: float, cost: FloatArray) -> None:
    """Print a row: share of draws without a certificate, share of false ones, cost share when certified."""
    given = chosen >= 0
    false = given & (truth[chosen] < limit)
    paid = cost[chosen[given]].mean() if given.any() else math.nan
    print(f"| {name} | {labels} | {1 - given.mean():.3f} | {false.mean():.4f} | {paid:.3f} |", flush=True)


def exact(population: Population, floor: float, labels: int, draws: int, seed: int) -> FloatArray:
    """(D,) the setting certified by the exact binomial test."""
    random = np.random.default_rng(seed)
    rows = len(population.quality)
    counts = random.multinomial(labels, np.full(rows, 1 / rows), size=draws)
    successes = np.rint(counts @ population.quality)
    return last_passed(binom.sf(successes - 1, labels, floor))


def smart(population: Population, floor: float, labels: int, draws: int, seed: int) -> FloatArray:
    """(D,) SMART's way: Clopper-Pearson intervals read after every 20 labels, any setting that ever passes is taken."""
    random = np.random.default_rng(seed)
    looks = np.arange(20, labels + 1, 20)
    chosen = np.full(draws, -1)
    for draw in range(draws):
        drawn = population.quality[random.integers(len(population.quality), size=labels)]
        successes = np.cumsum(drawn, axis=0)[looks - 1]
        least = beta.ppf(LEVEL, successes, looks[:, None] - successes + 1)
        passed = np.flatnonzero((np.nan_to_num(least) >= floor).any(axis=0))
        chosen[draw] = passed.max() if len(passed) else -1
    return chosen


def betting(scores: FloatArray, limit: float, draws: int, seed: int) -> dict[int, FloatArray]:
    """For each size (D,): the setting certified by the betting test, looked at after every label. scores (T, S)."""
    random = np.random.default_rng(seed)
    chosen = {size: np.full(draws, -1) for size in SIZES}
    values, codes = np.unique(scores, return_inverse=True)
    codes = codes.reshape(scores.shape)
    gains = np.log1p((STAKES / limit)[:, None] * (values - limit)[None, :])
    for draw in range(draws):
        drawn = codes[random.integers(len(codes), size=max(SIZES))]
        wealth = np.full(drawn.shape, -np.inf)
        for gain in gains:
            np.logaddexp(wealth, np.cumsum(gain[drawn], axis=0), out=wealth)
        best = np.maximum.accumulate(wealth - math.log(len(STAKES)), axis=0)
        for size in SIZES:
            chosen[size][draw] = last_passed(np.exp(-np.maximum(best[size - 1], 0.0))[None, :])[0]
    return chosen


def betting_once(scores: FloatArray, limit: float, labels: int, draws: int, seed: int) -> FloatArray:
    """(D,): the setting certified by the betting test that allows one look. scores (T, S)."""
    random = np.random.default_rng(seed)
    chosen = np.full(draws, -1)
    for draw in range(draws):
        drawn = scores[random.integers(len(scores), size=labels)]
        wealth = np.cumsum(np.log1p(aimed_stakes(drawn, limit, LEVEL) * (drawn - limit)), axis=0)
        chosen[draw] = last_passed(np.exp(-np.maximum(wealth.max(axis=0), 0.0))[None, :])[0]
    return chosen


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    options = parser.parse_args()
    if not DATA.is_dir():
        print("../shared/data is not here: nothing to measure")
        return 0
    started = time.perf_counter()
    population = load_population()
    truth = population.quality.mean(axis=0)
    print("| test | labels | too little data | false | cost share |\n|---|---|---|---|---|")
    for labels in SIZES:
        found = exact(population, FLOOR, labels, options.draws, labels)
        describe(f"floor {FLOOR}, exact binomial", labels, found, truth, FLOOR, population.cost_share)
    for labels, found in betting(population.quality, FLOOR, options.draws, 1).items():
        describe(f"floor {FLOOR}, betting at every label", labels, found, truth, FLOOR, population.cost_share)
    paired = (1 + population.quality - population.reference[:, None]) / 2
    limit = (1 - POINTS / 100) / 2
    name = f"within {POINTS:g} points, betting"
    for labels in SIZES:
        found = betting_once(paired, limit, labels, options.draws, labels)
        describe(name, labels, found, paired.mean(axis=0), limit, population.cost_share)
    for labels, found in betting(paired, limit, options.draws, 2).items():
        describe(f"{name} at every label", labels, found, paired.mean(axis=0), limit, population.cost_share)
    print(f"\nA floor {JUST_BELOW} above the true quality of one setting, 2,000 labels, the worst of five settings:\n")
    print("| test | false |\n|---|---|")
    hard = [truth[place] + JUST_BELOW for place in np.linspace(0, len(truth) - 1, 7).astype(int)[1:-1]]
    size, draws = max(SIZES), options.draws

    def false_share(found: FloatArray, floor: float) -> float:
        return float(((found >= 0) & (truth[found] < floor)).mean())

    print(
        f"| exact binomial, one look | {max(false_share(exact(population, f, size, draws, 3), f) for f in hard):.4f} |"
    )
    worst = max(false_share(betting(population.quality, f, draws // 5, 4)[size], f) for f in hard)
    print(f"| betting, a look after every label ({draws // 5} draws each) | {worst:.4f} |", flush=True)
    worst = max(false_share(smart(population, f, size, draws // 5, 5), f) for f in hard)
    print(f"| SMART: Clopper-Pearson after every 20 labels ({draws // 5} draws each) | {worst:.4f} |")
    print(f"({time.perf_counter() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
