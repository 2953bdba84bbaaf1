"""Streams: what each promise of a floor costs in many orders of the same requests, and how well it is kept.

Requests are drawn, and real forecasts replayed: those of an outcomes file (`--data OUTCOMES --prices PRICES`). Without
the option they are those of `../shared/data`, where that exists. A cost is a multiple of what the same promise costs in
hindsight, by the linear programme of `eccos_core.simulation.hindsight`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation import compute_hindsight_cost
from eccos_core.streaming import FloorTarget, InitialPrices, StreamController, fit_initial_prices

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FLOORS = (0.65, 0.70, 0.74)
START = 1_000  # requests after which the running mean is promised
PROMISES = {
    "mean": FloorTarget(0.0),
    "window": FloorTarget(0.0, "window"),
    "window, insured by history": FloorTarget(0.0, "window", floor_insurance="history"),
}


@dataclass(frozen=True, eq=False)
class Requests:
    """Forecasts and recorded quality (N, M) of requests, and the topic of each (N,)."""

    quality: np.ndarray
    cost_usd: np.ndarray
    recorded: np.ndarray
    topic: np.ndarray

    def rows(self, index: np.ndarray) -> Requests:
        """Return requests in another order."""
        return Requests(self.quality[index], self.cost_usd[index], self.recorded[index], self.topic[index])


def drawn(requests: int, seed: int, models: int = 9) -> Requests:
    """Draw forecasts with a spread of difficulty, the dearer models the better. They are right, and have no topics."""
    generator = np.random.default_rng(seed)
    skill = np.linspace(-0.3, 2.0, models) + generator.normal(0, 0.2, models)
    quality = 1 / (
        1 + np.exp(generator.normal(0.6, 1.2, (requests, 1)) - skill + generator.normal(0, 0.4, (requests, models)))
    )
    usd = 1e-4 * 200 ** np.linspace(0, 1, models) * np.exp(generator.normal(0, 0.5, (requests, 1)))
    return Requests(quality, usd, generator.random((requests, models)) < quality, np.zeros(requests))


def recorded(data: Path, prices: Path) -> tuple[Requests, Requests]:
    """Forecast the training and test questions of an outcomes file by the hybrid predictor."""
    from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
    from eccos_core.evaluation.recorded_cost import filled_input_tokens
    from eccos_core.io.outcomes import read_outcomes, split
    from eccos_core.io.prices import read_prices
    from eccos_core.predictors import fit_predictor

    outcomes = read_outcomes(data)
    price_table = read_prices(prices, outcomes.models)
    usd = np.array([price_table[name] for name in outcomes.models])
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    tables = [table.rows(np.isfinite(table.quality).any(axis=1)) for table in split(outcomes)]
    vectors = [encoder.encode(table.queries) for table in tables]
    predictor = fit_predictor("hybrid", tables[0], vectors[0])
    found = []
    for table, each in zip(tables, vectors, strict=True):
        tokens = filled_input_tokens(table).mean(axis=1)
        forecast = predictor.predict(each, tokens)
        cost = tokens[:, None] * usd[:, 0] + forecast.output_tokens * usd[:, 1]
        topics = np.array([str(label) for label in table.labels.get("category", table.queries)])
        found.append(Requests(forecast.quality, cost, table.quality, topics))
    return found[0], found[1]


def orders(requests: Requests) -> dict[str, np.ndarray]:
    """Return orders of the requests, most of them by the best forecast quality."""
    generator, count = np.random.default_rng(0), len(requests.quality)
    best, place = requests.quality.max(axis=1), np.arange(count)
    easy_first = np.argsort(-best)
    half, eighth = count // 2, count // 8

    def by(hardness: np.ndarray) -> np.ndarray:
        """Put the k-th hardest request at the place with the k-th greatest hardness."""
        order = np.empty(count, dtype=np.int64)
        order[np.argsort(-(hardness + 1e-3 * generator.random(count)))] = easy_first[::-1]
        return order

    blocks = np.concatenate([generator.permutation(easy_first[:half]), generator.permutation(easy_first[half:])])
    eighths = [generator.permutation(part) for part in np.array_split(easy_first, 8)]
    others = np.array_split(generator.permutation(easy_first[:-eighth]), 4)
    bursts = np.array_split(generator.permutation(easy_first[-eighth:]), 4)
    day = np.sin(2 * np.pi * place / 1000) + 0.5 * generator.normal(size=count)
    drift = by(place / count + 0.3 * generator.normal(size=count))
    found = {
        "shuffled": generator.permutation(count),
        "easy to hard": easy_first,
        "hard to easy": easy_first[::-1],
        "easy block, hard block": blocks,
        "hard block, easy block": np.concatenate([blocks[half:], blocks[:half]]),
        "eighths in turn": np.concatenate([eighths[i] for i in (0, 7, 1, 6, 2, 5, 3, 4)]),
        "four hard bursts": np.concatenate(list(itertools.chain(*zip(others, bursts, strict=True)))),
        **{f"stretches of {length}": by(place // length % 2) for length in (60, 125, 250)},
        "60 hard in 500": by((place % 500 >= 440).astype(float)),
        "day and night": by(-day),
        "night and day": by(day),
        "slow drift to hard": drift,
        "slow drift to easy": drift[::-1],
    }
    topics = generator.permutation(np.unique(requests.topic))
    if len(topics) > 1:
        found["sorted by topic"] = np.concatenate(
            [generator.permutation(np.flatnonzero(requests.topic == topic)) for topic in topics]
        )
    return found


@functools.cache
def initial_prices(training: Requests, target: FloorTarget) -> InitialPrices:
    """Fit the prices to start with, for a pool without caps."""
    models = [str(j) for j in range(training.quality.shape[1])]
    fitted = fit_initial_prices(training.quality, training.cost_usd, target, DualOptimizer(), models=models)
    return replace(fitted, slots=None)


@functools.cache
def hindsight_cost(target: FloorTarget, requests: Requests) -> float:
    """Compute the least cost of a promise once."""
    return compute_hindsight_cost(target, requests.quality, requests.cost_usd)


@dataclass(frozen=True)
class Result:
    """One stream. shortfall: the most by which a promised mean misses the floor, or the attainable mean."""

    cost: float
    predicted: float
    realised: float
    shortfall: float
    missed: float
    median_us: float


def run(target: FloorTarget, training: Requests, requests: Requests) -> Result:
    """Decide one stream."""
    controller = StreamController(target, initial_prices(training, target))
    everybody = np.ones(requests.quality.shape[1], dtype=bool)
    models, seconds = [], []
    for quality, cost in zip(requests.quality, requests.cost_usd, strict=True):
        start = time.perf_counter()
        models.append(controller.decide(quality, cost, everybody).model)
        seconds.append(time.perf_counter() - start)
    rows = np.arange(len(models))
    chosen, best = requests.quality[rows, models], requests.quality.max(axis=1)
    if target.promise == "mean":
        means, attainable = ((np.cumsum(values) / (rows + 1))[START - 1 :] for values in (chosen, best))
    else:
        flat = np.ones(target.window) / target.window
        means, attainable = (np.convolve(values, flat, "valid") for values in (chosen, best))
    short = np.minimum(target.alpha, attainable) - means
    return Result(
        float(requests.cost_usd[rows, models].sum())
        / hindsight_cost(replace(target, floor_insurance="none"), requests),
        float(chosen.mean()),
        float(np.nanmean(requests.recorded[rows, models])),
        float(short.max()),
        float((short > target.tolerance + 1e-9).mean()),
        1e6 * statistics.median(seconds),
    )


def print_orders(promise: str, training: Requests, by_order: Mapping[str, Requests]) -> list[Result]:
    """Print one line per order: cost, predicted and realised mean, and the most by which a promised mean fell short."""
    print("| order |" + "".join(f" {floor:.2f}: cost | predicted | realised | short by |" for floor in FLOORS))
    print("|---|" + 4 * len(FLOORS) * "---:|")
    found: list[Result] = []
    for name, requests in by_order.items():
        line = [run(replace(PROMISES[promise], alpha=floor), training, requests) for floor in FLOORS]
        cells = (f" {r.cost:.2f} | {r.predicted:.4f} | {r.realised:.4f} | {max(r.shortfall, 0):.4f} |" for r in line)
        print(f"| {name} |" + "".join(cells), flush=True)
        found += line
    return found


def print_price_changes(training: Requests, stream: Requests) -> None:
    """Change prices half way, and print what requests 100 to 1,100 after it cost and reach."""
    models = stream.quality.shape[1]
    dear, cheap = stream.cost_usd.mean(axis=0).argmax(), stream.cost_usd.mean(axis=0).argmin()
    changes = {
        "none": np.ones(models),
        "all x 5": np.full(models, 5.0),
        "all / 5": np.full(models, 0.2),
        "dearest / 10": np.where(np.arange(models) == dear, 0.1, 1.0),
        "dearest x 5": np.where(np.arange(models) == dear, 5.0, 1.0),
        "cheapest x 10": np.where(np.arange(models) == cheap, 10.0, 1.0),
    }
    half = len(stream.quality) // 2
    after = np.arange(half + 100, min(half + 1_100, len(stream.quality)))
    print("| change of prices |" + "".join(f" {floor:.2f}: cost | predicted |" for floor in FLOORS))
    print("|---|" + 2 * len(FLOORS) * "---:|")
    for name, factor in changes.items():
        cost = np.concatenate([stream.cost_usd[:half], stream.cost_usd[half:] * factor])
        line = f"| {name} |"
        for floor in FLOORS:
            target = FloorTarget(floor)
            controller = StreamController(target, initial_prices(training, target))
            everybody = np.ones(models, dtype=bool)
            chosen = np.array(
                [controller.decide(q, c, everybody).model for q, c in zip(stream.quality, cost, strict=True)]
            )
            best = compute_hindsight_cost(replace(target, horizon=len(after)), stream.quality[after], cost[after])
            mean = stream.quality[after, chosen[after]].mean()
            line += f" {cost[after, chosen[after]].sum() / best:.2f} | {mean:.4f} |"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "qa_math_mix9.jsonl.gz")
    parser.add_argument("--prices", type=Path, default=SHARED / "qa_math_mix9.prices.json")
    given = parser.parse_args()
    sources = {}
    if given.data.exists():
        sources[given.data.name] = recorded(given.data, given.prices)
    else:
        print(f"no real forecasts: {given.data} does not exist")
    sources["drawn"] = drawn(4000, 1), drawn(4000, 2)
    for source, (training, stream) in sources.items():
        by_order = {name: stream.rows(order) for name, order in orders(stream).items()}
        summary = []
        for promise, limit in zip(PROMISES, (1.3, 1.6, 1.6), strict=True):
            print(f"\n### {source}: {promise}\n")
            found = print_orders(promise, training, by_order)
            costs = sorted(result.cost for result in found)
            summary.append(
                f"| {promise} | {statistics.mean(costs):.2f} | {costs[-1]:.2f} | "
                f"{sum(cost <= limit for cost in costs)} of {len(costs)} at most {limit} | "
                f"{100 * statistics.mean(result.missed for result in found):.1f} % | "
                f"{max(max(result.shortfall for result in found), 0):.4f} | "
                f"{statistics.median(result.median_us for result in found):.0f} µs |"
            )
        print(f"\n### {source}: summary\n")
        print("| promise | mean cost | highest | within the target | means missed | short by | a decision |")
        print("|---|---:|---:|---:|---:|---:|---:|", *summary, sep="\n")
        print(f"\n### {source}: prices change half way, shuffled, mean\n")
        print_price_changes(training, by_order["shuffled"])


if __name__ == "__main__":
    main()
