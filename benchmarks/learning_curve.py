"""How good routing is with 100, 300, 1000, 3000 and 9000 outcomes a model: `python benchmarks/learning_curve.py`.

Training rows of `../shared/data` are drawn at random (the same for every predictor and encoder), a predictor is fitted
on them, and its frontier is measured on all test rows. Numbers are means over `--draws` draws. Area and cost shares as
in `eccos evaluate`. "gain" is the mean difference of the area to that of `prior` on the same draw, in thousandths, and
"worst" the least one. "below" counts the draws in which it is under -2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
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
from eccos_core.evaluation.calibration import measure_calibration
from eccos_core.evaluation.metrics import RecordedOutcomes, score_forecast
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.files import cache_folder
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.predictors import fit_predictor
from eccos_core.protocols import Encoder

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "openhands34")
SIZES = (100, 300, 1000, 3000, 9000)
KINDS = ("prior", "retrieval", "trained", "hybrid")
ENCODERS = ("static", "minilm")
COLUMNS = (
    *("encoder", "predictor", "outcomes", "area", "gain", "worst", "below", "0.90", "0.95", "0.98", "1.00"),
    *("Brier", "ECE", "fit s"),
)
TOLERANCE = 0.002  # of area: a draw this far below the prior counts as worse


def encoders() -> dict[str, Encoder]:
    """The two that eccos recommends; MiniLM's vectors are kept on disk."""
    minilm = CachedEncoder(
        SentenceTransformerEncoder(threads=os.cpu_count() or 1, intermediate_layer=True),
        cache_folder() / "embeddings.sqlite",
    )
    static, surface = StaticEncoder(), SurfaceEncoder()
    return {
        "static": ConcatenatedEncoder([static, surface]),
        "minilm": ConcatenatedEncoder([minilm, surface]),
    }


def measure(
    kind: str,
    train: OutcomeTable,
    vectors: Float32Array,
    test: OutcomeTable,
    test_vectors: Float32Array,
    tariff: PriceTable,
) -> dict[str, float | list[float | None]]:
    """One predictor fitted on some rows, on the test rows."""
    started = time.perf_counter()
    predictor = fit_predictor(kind, train, vectors)
    fitted = time.perf_counter() - started
    read = filled_input_tokens(test)
    forecast = predictor.predict(test_vectors, read.mean(axis=1))
    recorded = RecordedOutcomes(test.models, test.quality, tariff.recorded_cost_usd(test), ~np.isnan(test.quality))
    score = score_forecast(
        forecast.quality, forecast.with_recorded_cost(tariff.cost_usd(read, forecast.output_tokens)), recorded
    )
    trust = measure_calibration(forecast.quality, test.quality, recorded.observed)
    return {
        "area": score.area,
        "cost_share": list(score.cost_share.values()),
        "brier": trust.brier,
        "ece": trust.ece,
        "fit_s": fitted,
    }


def main() -> int:
    """Prints the tables; writes them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, choices=ENCODERS)
    parser.add_argument("--draws", type=int, default=10, help="of the rows, for sizes up to 1000; 3 for 3000, 1 beyond")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    wanted = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    known = encoders()
    results = []
    for name in wanted.sets:
        train, test = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
        prices = DATA / f"{name}.prices.json"
        tariff = PriceTable.of(read_prices(prices, train.models) if prices.exists() else {}, train)
        print(f"\n{name}: {len(test)} test questions, {len(train.models)} models")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for encoder_name in wanted.encoders:
            encoder = known[encoder_name]
            vectors, test_vectors = encoder.encode(train.queries), encoder.encode(test.queries)
            for size in sorted({min(size, len(train)) for size in wanted.sizes}):
                found = defaultdict(list)
                for draw in range(draws(size, wanted.draws)):
                    chosen = np.random.default_rng(draw).choice(len(train), size, replace=False)
                    for kind in wanted.kinds:
                        found[kind].append(
                            measure(kind, train.rows(chosen), vectors[chosen], test, test_vectors, tariff)
                        )
                for kind, runs in found.items():
                    row = {"set": name, "encoder": encoder_name, "predictor": kind, "outcomes": size, "runs": runs}
                    results.append(row)
                    print(line(row, found.get("prior", runs)), flush=True)
    if wanted.json:
        wanted.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def draws(size: int, wanted: int) -> int:
    """How many draws of this many rows are measured: large ones hardly differ, and take longer."""
    return wanted if size <= 1000 else min(wanted, 3) if size <= 3000 else 1


def line(row: dict, prior: list[dict]) -> str:
    """One row of the table."""
    runs = row["runs"]
    mean = {key: float(np.mean([run[key] for run in runs])) for key in ("area", "brier", "ece", "fit_s")}
    gains = np.array([run["area"] - before["area"] for run, before in zip(runs, prior, strict=True)])
    shares = [[run["cost_share"][at] for run in runs] for at in range(4)]
    told = [f"{np.mean(s):.3f}" if all(v is not None for v in s) else f"never in {s.count(None)}" for s in shares]
    return (
        f"| {row['encoder']} | {row['predictor']} | {row['outcomes']} | {mean['area']:.4f} | "
        f"{1000 * gains.mean():+.1f} | {1000 * gains.min():+.1f} | {(gains < -TOLERANCE).sum()} of {len(gains)} | "
        + " | ".join(told)
        + f" | {mean['brier']:.4f} | {mean['ece']:.3f} | {mean['fit_s']:.1f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
