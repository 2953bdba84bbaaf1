"""Streams: time of one decision, and whether floor and windows are kept in adversarial orders, and at what cost.

Requests are drawn, and real forecasts replayed: those of an outcomes file (`--data OUTCOMES --prices PRICES`; without
them of `../shared/data`, where that exists). Each level
is a value of `FloorTarget.floor_insurance`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from eccos_core.domain import QualityFloor, RoutingProblem
from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation.scenario import Forecasts
from eccos_core.streaming import FloorTarget, StreamController, fit_initial_prices

WINDOW = 500
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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
    from eccos_core.io.outcomes import read_outcomes
    from eccos_core.io.prices import read_prices
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
    half, eighth = len(easy_first) // 2, len(easy_first) // 8
    blocks = np.concatenate([generator.permutation(easy_first[:half]), generator.permutation(easy_first[half:])])
    eighths = [generator.permutation(part) for part in np.array_split(easy_first, 8)]
    others = generator.permutation(easy_first[:-eighth])
    bursts = np.array_split(generator.permutation(easy_first[-eighth:]), 4)
    return {
        "shuffled": generator.permutation(len(quality)),
        "easy to hard": easy_first,
        "hard to easy": easy_first[::-1],
        "easy block, hard block": blocks,
        "hard block, easy block": np.concatenate([blocks[half:], blocks[:half]]),
        "bursts of eighths": np.concatenate([eighths[i] for i in (0, 7, 1, 6, 2, 5, 3, 4)]),
        "bursts of the hardest": np.concatenate(
            [part for pair in zip(np.array_split(others, 4), bursts, strict=True) for part in pair]
        ),
    }


def scenes(stream: Forecasts) -> Iterator[tuple[str, Forecasts, Callable[[int], np.ndarray]]]:
    """(name, requests in order, which models are open at each of them): every order, and a pool that changes."""
    everybody = np.ones(stream.quality.shape[1], dtype=bool)
    strongest = stream.quality.mean(axis=0).argmax()
    others = np.arange(len(everybody)) != strongest
    by_order = {
        name: Forecasts(stream.quality[rows], stream.cost_usd[rows]) for name, rows in orders(stream.quality).items()
    }
    for name, requests in by_order.items():
        yield name, requests, lambda _: everybody
    shuffled, half = by_order["shuffled"], len(stream.quality) // 2
    yield "strongest model down half way", shuffled, lambda request: others if request >= half else everybody
    yield "strongest model joins half way", shuffled, lambda request: everybody if request >= half else others


def run(
    target: FloorTarget, training: Forecasts, stream: Forecasts, open_models: Callable[[int], np.ndarray]
) -> dict[str, float | int]:
    """One stream: cost, quality, windows under the floor less one point though the floor was attainable in them."""
    names = [str(j) for j in range(stream.quality.shape[1])]
    prices = fit_initial_prices(training.quality, training.cost_usd, target, DualOptimizer(), models=names)
    controller = StreamController(target, replace(prices, slots=None))  # (a pool without caps)
    choices, seconds = [], []
    masks = np.array([open_models(i) for i in range(len(stream.quality))])
    for quality, usd, mask in zip(stream.quality, stream.cost_usd, masks, strict=True):
        start = time.perf_counter()
        choices.append(controller.decide(quality, usd, mask))
        seconds.append(time.perf_counter() - start)
    cost = sum(choice.cost_usd for choice in choices)
    chosen = np.array([choice.quality for choice in choices])
    best = np.where(masks, stream.quality, 0.0).max(axis=1)
    best_usd = stream.cost_usd[np.arange(len(best)), np.where(masks, stream.quality, -1.0).argmax(axis=1)].sum()
    flat = np.ones(WINDOW) / WINDOW
    window, reachable = np.convolve(chosen, flat, "valid"), np.convolve(best, flat, "valid")
    attainable = reachable >= target.alpha
    short = np.where(attainable, target.alpha - 0.01 - window, -1.0)
    count = np.arange(1, len(chosen) + 1)
    running, running_best = np.cumsum(chosen) / count, np.cumsum(best) / count
    running_short = (running < target.alpha - 0.01) & (running_best >= target.alpha)
    said = np.array([not choice.floor_met for choice in choices])[WINDOW - 1 :]
    batch = DualOptimizer().solve(
        RoutingProblem(
            stream.quality,
            stream.cost_usd,
            masks,
            np.full(len(names), len(chosen), dtype=np.int64),
            QualityFloor(target.alpha, "best_effort"),
            tuple(names),
        )
    )
    return {
        "decision_us": round(1e6 * statistics.median(seconds), 1),
        "quality": round(float(chosen.mean()), 4),
        "cost_over_batch": round(cost / batch.cost_usd, 2),
        "cost_over_best": round(cost / best_usd, 3),
        "attainable_windows": int(attainable.sum()),
        "windows_under": int((short > 0).sum()),
        "worst_under": round(max(float(short.max()), 0.0), 4),
        "running_under": int(running_short[WINDOW - 1 :].sum()),
        "most_regret_where_unattainable": round(float(np.where(attainable, 0.0, reachable - window).max()), 4),
        "unattainable_and_not_said": int((~attainable & ~said).sum()),
        "guarded_share": round(sum(choice.guarded for choice in choices) / len(choices), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floors", type=float, nargs="*", default=[0.65, 0.7, 0.74])
    parser.add_argument(
        "--levels", nargs="*", default=["0", "history", "0.6", "none"], help="history, none, or a quality"
    )
    parser.add_argument("--data", type=Path, default=SHARED / "qa_math_mix9.jsonl.gz")
    parser.add_argument("--prices", type=Path, default=SHARED / "qa_math_mix9.prices.json")
    chosen = parser.parse_args()
    sources = {"drawn": (drawn(4000, 1), drawn(4000, 2))}
    if chosen.data.exists():
        sources[chosen.data.name] = recorded(chosen.data, chosen.prices)
    else:
        print(f"no real forecasts: {chosen.data} does not exist")
    for source, floor, level in itertools.product(sources, chosen.floors, chosen.levels):
        training, stream = sources[source]
        target = FloorTarget(floor, WINDOW, floor_insurance=level if level in ("history", "none") else float(level))
        for name, requests, open_models in scenes(stream):
            found = run(target, training, requests, open_models)
            row = {"forecasts": source, "floor": floor, "floor_insurance": level, "order": name, **found}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
