"""What each encoder tells of a question's difficulty: see docs/benchmarks/index.md.

Out of fold, on the training rows of `../shared/data`: the share of the variance of the first signal (how hard a
question is for everybody) that the hybrid's learners explain on vectors of an encoder. Says so and does nothing where
the data is absent.
"""

from __future__ import annotations

import os
import sys
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
from eccos_core.io.files import cache_folder
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.predictors import GaussianProcess, KMeans, NearestNeighbors, RidgeRegression
from eccos_core.predictors.ensemble.weights import fit_stacking_weights
from eccos_core.predictors.fit import build_training_set
from eccos_core.predictors.targets.latent import fit_latent_targets
from eccos_core.protocols import Encoder

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter")
LEARNERS = (NearestNeighbors(), GaussianProcess(), RidgeRegression(), KMeans())


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


def explained(table: OutcomeTable, vectors: Float32Array) -> float:
    """R2 of the first signal, every row judged by what was learnt without it."""
    _, training = build_training_set(table, vectors, fit_latent_targets(table, {}))
    held_out = [learner.fit(training)[1] for learner in LEARNERS]
    forecast = fit_stacking_weights(held_out, training.targets.values, leader=1).combine(
        np.concatenate(held_out, axis=1)
    )
    wanted = training.targets.values[:, 0]
    return 1 - float(((wanted - forecast[:, 0]) ** 2).mean() / wanted.var())


def main() -> int:
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    tables = [split(read_outcomes(DATA / f"{name}.jsonl.gz"))[0] for name in SETS]
    print(f"| vector | {' | '.join(SETS)} |\n|---|---|---|")
    for name, encoder in encoders().items():
        told = [f"{explained(table, encoder.encode(table.queries)):.3f}" for table in tables]
        print(f"| {name} | {' | '.join(told)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
