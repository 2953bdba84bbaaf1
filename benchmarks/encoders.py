"""What each encoder tells of a question's difficulty, and how well you route on it: see docs/benchmarks/index.md.

Out of fold, on the training rows of `../shared/data`. R2 is the share of the variance of the first signal (how hard a
question is for everybody) that learners explain on vectors of an encoder. Area is mean accuracy over cost, when you
route by their forecasts. Says so and does nothing where the data is absent.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array, OutcomeTable
from eccos_core.encoders import (
    CachedEncoder,
    ConcatenatedEncoder,
    SentenceTransformerEncoder,
    StaticEncoder,
    SurfaceEncoder,
)
from eccos_core.evaluation.metrics import RecordedOutcomes, score_forecast
from eccos_core.evaluation.recorded_cost import PriceTable
from eccos_core.io.files import cache_folder
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import GaussianProcess, KMeans, NearestNeighbors, RidgeRegression
from eccos_core.predictors.ensemble.weights import fit_stacking_weights
from eccos_core.predictors.fit import build_training_set
from eccos_core.predictors.targets.latent import fit_latent_targets
from eccos_core.protocols import Encoder

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "openhands34")
LEARNERS = (NearestNeighbors(), GaussianProcess(), RidgeRegression(), KMeans())
SELF_SHRINKING = 1  # the Gaussian process


@dataclass(frozen=True)
class OutOfFold:
    """`r2` of the first signal, and the routing `area`. Every row is judged by what was learnt without it."""

    r2: float
    area: float


@dataclass(frozen=True)
class TrainingRows:
    """Training rows of one set, and what each recorded call cost in USD."""

    name: str
    table: OutcomeTable
    recorded: RecordedOutcomes

    @classmethod
    def draw(cls, name: str, most: int) -> TrainingRows:
        """Read a set, and draw at most so many of its training rows."""
        train, _ = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
        table = train.rows(np.sort(np.random.default_rng(0).permutation(len(train))[:most]))
        prices = DATA / f"{name}.prices.json"
        tariff = PriceTable.of(read_prices(prices, table.models) if prices.exists() else {}, table)
        observed = ~np.isnan(table.quality)
        return cls(
            name, table, RecordedOutcomes(table.models, table.quality, tariff.recorded_cost_usd(table), observed)
        )

    def measure(self, vectors: Float32Array) -> OutOfFold:
        """Fit the learners out of fold on vectors (N, D) of the questions. Every call is forecast its mean cost."""
        _, training = build_training_set(self.table, vectors, fit_latent_targets(self.table, {}))
        held_out = [learner.fit(training)[1] for learner in LEARNERS]
        stack = fit_stacking_weights(held_out, training.targets.values, SELF_SHRINKING)
        forecast = stack.combine(np.concatenate(held_out, axis=1)).astype(np.float64)
        wanted = training.targets.values[:, 0]
        quality = training.targets.latent_targets.quality(forecast)
        cost = np.broadcast_to(self.recorded.single_cost_usd, quality.shape)
        area = score_forecast(quality, cost, self.recorded).area
        assert area is not None  # only a plain model has no area
        return OutOfFold(1 - float(((wanted - forecast[:, 0]) ** 2).mean() / wanted.var()), area)


def encoders() -> dict[str, Encoder]:
    """By the name in the table."""
    threads, kept = os.cpu_count() or 1, cache_folder() / "embeddings.sqlite"
    plain = CachedEncoder(SentenceTransformerEncoder(threads=threads), kept)
    middle = CachedEncoder(SentenceTransformerEncoder(threads=threads, intermediate_layer=True), kept)
    static, surface = StaticEncoder(), SurfaceEncoder()
    return {
        "surface": surface,
        "static": static,
        "static and surface": ConcatenatedEncoder([static, surface]),
        "MiniLM": plain,
        "MiniLM and surface": ConcatenatedEncoder([plain, surface]),
        "MiniLM with its middle layer": middle,
        "MiniLM with its middle layer, and surface": ConcatenatedEncoder([middle, surface]),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--rows", type=int, default=100_000, help="at most so many training rows of a set")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    drawn = [TrainingRows.draw(name, options.rows) for name in options.sets]
    print(f"| vector | {' | '.join(f'{rows.name}: R2 | area' for rows in drawn)} |\n|---|{'---|' * (2 * len(drawn))}")
    for name, encoder in encoders().items():
        found = [rows.measure(encoder.encode(rows.table.queries)) for rows in drawn]
        print(f"| {name} | {' | '.join(f'{each.r2:.3f} | {each.area:.4f}' for each in found)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
