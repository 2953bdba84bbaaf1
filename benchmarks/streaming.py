"""Streams: time of one decision, and whether floor and windows are kept in adversarial orders.

`python benchmarks/streaming.py` draws requests; `--data OUTCOMES --prices PRICES` replays real forecasts instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eccos_core.domain import QualityFloor, RoutingProblem
from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation.scenario import Forecasts
from eccos_core.streaming import FloorTarget, StreamController, StreamPrices, offline_prices

TARGET_MICROSECONDS = 50
WINDOW = 500


def drawn(requests: int, seed: int, models: int = 9) -> Forecasts:
    """Forecasts with a spread of difficulty, the dearer models the better."""
    generator = np.random.default_rng(seed)
    skill = np.linspace(-0.3, 2.0, models) + generator.normal(0, 0.2, models)
    quality = 1 / (
        1 + np.exp(generator.normal(0.6, 1.2, (requests, 1)) - skill + generator.normal(0, 0.4, (requests, models)))
    )
    usd = 1e-4 * 200 ** np.linspace(0, 1, models)
    return Forecasts(quality, usd * np.exp(generator.normal(0, 0.5, (requests, 1))))


def recorded(data: Path, prices: Path) -> tuple[Forecasts, Forecasts]:
    """(training, test) forecasts of an outcomes file by the retrieval predictor."""
    from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
    from eccos_core.outcomes import read_outcomes, read_prices
    from eccos_core.simulation.recorded import Draw, recorded_scenario
    from eccos_core.simulation.scenario import Service

    outcomes = read_outcomes(data)
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    tariff = read_prices(prices, outcomes.models)
    scenario = recorded_scenario(outcomes, tariff, encoder, "hybrid", Service(), Draw())
    return scenario.training, scenario.forecast


def orders(quality: np.ndarray) -> dict[str, np.ndarray]:
    """Adversarial orders of the requests, by the best forecast quality."""
    generator = np.random.default_rng(0)
    easy_first = np.argsort(-quality.max(axis=1))
    half = len(easy_first) // 2
    blocks = np.concatenate([generator.permutation(easy_first[:half]), generator.permutation(easy_first[half:])])
    eighths = [generator.permutation(part) for part in np.array_split(easy_first, 8)]
    return {
        "shuffled": generator.permutation(len(quality)),
        "easy to hard": easy_first,
        "hard to easy": easy_first[::-1],
        "easy block, hard block": blocks,
        "hard block, easy block": np.concatenate([blocks[half:], blocks[:half]]),
        "bursts of eighths": np.concatenate([eighths[i] for i in (0, 7, 1, 6, 2, 5, 3, 4)]),
    }


def without_strongest_from(quality: np.ndarray, from_request: int) -> Callable[[int], np.ndarray]:
    """The model that is best on average goes down half way."""
    everybody = np.ones(quality.shape[1], dtype=bool)
    others = np.arange(quality.shape[1]) != quality.mean(axis=0).argmax()
    return lambda request: others if request >= from_request else everybody


def run(
    floor: float, training: Forecasts, stream: Forecasts, open_models: Callable[[int], np.ndarray]
) -> dict[str, float | int]:
    """One stream: cost, quality, windows under the floor less one point though the floor was attainable in them."""
    names = [str(j) for j in range(stream.quality.shape[1])]
    target = FloorTarget(floor, window=WINDOW)
    prices = offline_prices(training.quality, training.cost_usd, target, DualOptimizer(), models=names)
    controller = StreamController(target, StreamPrices(prices.quality))
    chosen, best, cost, seconds, guarded = [], [], [], [], 0
    for i, (quality, usd) in enumerate(zip(stream.quality, stream.cost_usd, strict=True)):
        mask = open_models(i)
        start = time.perf_counter()
        choice = controller.decide(quality, usd, mask)
        seconds.append(time.perf_counter() - start)
        chosen.append(choice.quality)
        cost.append(choice.cost_usd)
        best.append(quality[mask].max())
        guarded += choice.guarded
    flat = np.ones(WINDOW) / WINDOW
    window, reachable = np.convolve(chosen, flat, "valid"), np.convolve(best, flat, "valid")
    attainable = reachable >= floor
    short = np.where(attainable, floor - 0.01 - window, -1.0)
    count = np.arange(1, len(chosen) + 1)
    running = np.cumsum(chosen) / count
    running_short = (running < floor - 0.01) & (np.cumsum(best) / count >= floor)
    batch = DualOptimizer().solve(
        RoutingProblem(
            stream.quality,
            stream.cost_usd,
            np.ones(stream.quality.shape, dtype=bool),
            np.full(len(names), len(chosen), dtype=np.int64),
            QualityFloor(floor, "best_effort"),
            tuple(names),
        )
    )
    return {
        "decision_us": round(1e6 * statistics.median(seconds), 1),
        "quality": round(float(np.mean(chosen)), 4),
        "cost_over_batch": round(sum(cost) / batch.cost_usd, 2),
        "attainable_windows": int(attainable.sum()),
        "windows_under": int((short > 0).sum()),
        "worst_under": round(max(float(short.max()), 0.0), 4),
        "running_under": int(running_short[WINDOW - 1 :].sum()),
        "most_regret_where_unattainable": round(float(np.where(attainable, 0.0, reachable - window).max()), 4),
        "guarded_share": round(guarded / len(chosen), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floors", type=float, nargs="*", default=[0.65, 0.7, 0.74])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prices", type=Path)
    chosen = parser.parse_args()
    training, stream = recorded(chosen.data, chosen.prices) if chosen.data else (drawn(4000, 1), drawn(4000, 2))
    models = stream.quality.shape[1]
    for floor in chosen.floors:
        for name, rows in orders(stream.quality).items():
            ordered = Forecasts(stream.quality[rows], stream.cost_usd[rows])
            found = run(floor, training, ordered, lambda _: np.ones(models, dtype=bool))
            print(json.dumps({"floor": floor, "order": name, **found}), flush=True)
        rows = orders(stream.quality)["shuffled"]
        ordered = Forecasts(stream.quality[rows], stream.cost_usd[rows])
        found = run(floor, training, ordered, without_strongest_from(stream.quality, len(rows) // 2))
        print(json.dumps({"floor": floor, "order": "strongest model down half way", **found}), flush=True)


if __name__ == "__main__":
    main()
