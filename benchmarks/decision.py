"""How long a decision takes: text in, `Decision` out, floor policy, 9 models, 9,200 questions in the history.

Real questions of `../shared/data/qa_math_mix9`, one warm process, one thread. Medians; the encoder's own time is
measured in the same run, so that the share of the rest can be seen. Says so and does nothing where the data is absent.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from eccos_core.decider import Decider
from eccos_core.domain import Model, OutcomeTable, QualityFloor, Request
from eccos_core.encoders import ConcatenatedEncoder, SentenceTransformerEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.learning import remembering
from eccos_core.optimizer import DualOptimizer
from eccos_core.outcomes import read_outcomes, read_prices, split
from eccos_core.predictors import fit_predictor
from eccos_core.protocols import Encoder
from eccos_core.router import Router
from eccos_core.streaming import FloorTarget, StreamController, StreamPrices
from eccos_core.testing import ScriptedBackend
from eccos_core.workload import WorkloadTracker

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SINGLES, BATCH = 300, 10_000


def router_over(encoder: Encoder, table: OutcomeTable, models: list[Model]) -> Router:
    vectors = remembering(encoder).encode(table.queries)
    predictor = fit_predictor("hybrid", table, vectors)
    controller = StreamController(FloorTarget(0.7), StreamPrices(0.01))
    decider = Decider(models, encoder, predictor, DualOptimizer(), steering={"": controller})
    backend = ScriptedBackend({model.name: ["x"] for model in models}, models)
    return Router(decider, backend, WorkloadTracker(models), QualityFloor(0.7))


def milliseconds(work: list[float]) -> float:
    return 1000 * statistics.median(work)


def timed(call: object, items: list[str]) -> list[float]:
    taken = []
    for item in items:
        started = time.perf_counter()
        call(item)  # type: ignore[operator]
        taken.append(time.perf_counter() - started)
    return taken


def measure(
    name: str, encoder: Encoder, train: OutcomeTable, test: OutcomeTable, models: list[Model]
) -> dict[str, object]:
    router = router_over(encoder, train, models)
    questions = list(test.queries)
    singles = questions[:SINGLES]
    timed(router.decide, questions[SINGLES : SINGLES + 30])  # warm
    encoding = timed(lambda text: encoder.encode([text]), singles)
    deciding = timed(router.decide, singles)
    batch = [Request.of(questions[i % len(questions)]) for i in range(BATCH if name == "static" else 500)]
    started = time.perf_counter()
    router.route(batch)
    whole = time.perf_counter() - started
    return {
        "encoder": name,
        "decision_ms": milliseconds(deciding),
        "encoder_ms": milliseconds(encoding),
        "ratio": statistics.median(deciding) / statistics.median(encoding),
        "batch": len(batch),
        "requests_per_second": len(batch) / whole,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", choices=("static", "minilm", "both"), default="both")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    table = read_outcomes(DATA / "qa_math_mix9.jsonl.gz")
    prices = read_prices(DATA / "qa_math_mix9.prices.json", table.models)
    models = [Model(name, *prices[name]) for name in table.models]
    train, test = split(table)
    encoders: dict[str, Encoder] = {
        "static": ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()]),
        "minilm": ConcatenatedEncoder([SentenceTransformerEncoder(), SurfaceEncoder()]),
    }
    rows = []
    for name, encoder in encoders.items():
        if given.encoder in (name, "both"):
            rows.append(measure(name, encoder, train, test, models))
            print(
                json.dumps({key: round(each, 3) if isinstance(each, float) else each for key, each in rows[-1].items()})
            )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))
    length = int(np.median([len(text) for text in test.queries]))
    print(f"questions of median {length} characters, {len(train)} in the history")
    return 0


if __name__ == "__main__":
    sys.exit(main())
