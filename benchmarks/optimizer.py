"""Time, gap and memory of the optimizers on problems drawn by a seeded generator: `python benchmarks/optimizer.py`.

Half of the models (the busiest at the unconstrained optimum) are capped at 70 % of the load that they would get, and
the floor lies half way between the cheapest and the best mean quality: floor and caps all bind. Beside `AutoOptimizer`
run, on the same problems, `ExactOptimizer`, HiGHS (scipy's `milp`, with and without whole numbers), and the model that
AIOS ships (PuLP and CBC).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from highs import solve_with_highs

from eccos_core.domain import Assignment, QualityFloor, RoutingProblem, SolutionStatus
from eccos_core.optimizer import AutoOptimizer, ExactOptimizer
from eccos_core.simulation.scenario import Forecasts

TARGETS = {(100, 5): (0.020, 0.5), (1_000, 10): (0.040, 0.05), (10_000, 10): (0.250, 0.005), (100_000, 20): (10, 0.001)}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
EXACT_LIMIT, HIGHS_LP_LIMIT, HIGHS_LIMIT, CBC_LIMIT = 20_000, 100_000, 10_000, 10_000  # (request, model) pairs
NEAR_BEST = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # below the best attainable mean quality


def draw_problem(requests: int, models: int, seed: int) -> RoutingProblem:
    """A pool from cheap and weak to dear and strong, requests from easy to hard, token counts with heavy tails."""
    generator = np.random.default_rng(seed)
    price = np.sort(np.exp(generator.uniform(0, np.log(100), models))) * 1e-6
    strength = 2.4 * np.log(price / price.min()) / np.log(100) + generator.normal(0, 0.5, models)
    difficulty = generator.normal(1.2, 1.3, (requests, 1))
    quality = 1 / (1 + np.exp(difficulty - strength + generator.normal(0, 0.7, (requests, models))))
    read = np.exp(generator.normal(5, 0.7, (requests, 1)))
    written = np.exp(
        generator.normal(5.5, 0.6, (requests, 1))
        + generator.normal(0, 0.3, (requests, models))
        + generator.normal(0, 0.3, models)
    )
    return bound_tightly(quality, price * (read + 4 * written))


def bound_tightly(quality: np.ndarray, cost: np.ndarray) -> RoutingProblem:
    """Floor and half of the caps binding, for any quality (R, M) and cost (R, M)."""
    requests, models = quality.shape
    rows = np.arange(requests)
    cheapest, best = quality[rows, cost.argmin(axis=1)].mean(), quality.max(axis=1).mean()
    alpha = cheapest + 0.5 * (best - cheapest)
    low, high = 1e-12, 1e6 * cost.max()
    for _ in range(80):
        middle = np.sqrt(low * high)
        if quality[rows, (cost - middle * quality).argmin(axis=1)].mean() < alpha:
            low = middle
        else:
            high = middle
    load = np.bincount((cost - high * quality).argmin(axis=1), minlength=models)
    capacity = np.full(models, requests, dtype=np.int64)
    busiest = np.argsort(-load)[: (models + 1) // 2]
    capacity[busiest] = np.maximum(1, 0.7 * load[busiest]).astype(np.int64)
    problem = RoutingProblem(
        quality,
        cost,
        np.ones((requests, models), dtype=bool),
        capacity,
        QualityFloor(1.0, "best_effort"),
        tuple(f"model-{j:02d}" for j in range(models)),
    )
    attainable = AutoOptimizer().solve(problem).quality if requests <= 10_000 else best
    floor = min(alpha, cheapest + 0.8 * (attainable - cheapest))
    return replace(problem, policy=QualityFloor(float(floor)))


def solve_with_cbc(problem: RoutingProblem) -> tuple[float, float]:
    """The integer program as AIOS ships it, with PuLP and CBC: cost in USD and mean quality."""
    import pulp

    requests, models = problem.quality.shape
    program = pulp.LpProblem("routing", pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x_{i}_{j}", cat="Binary") for j in range(models)] for i in range(requests)]
    program += pulp.lpSum(problem.cost_usd[i, j] * x[i][j] for i in range(requests) for j in range(models))
    program += (
        pulp.lpSum(problem.quality[i, j] * x[i][j] for i in range(requests) for j in range(models))
        >= problem.policy.alpha * requests
    )
    for i in range(requests):
        program += pulp.lpSum(x[i]) == 1
    for j in range(models):
        program += pulp.lpSum(x[i][j] for i in range(requests)) <= int(problem.capacity[j])
    program.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=120))
    choice = np.array([max(range(models), key=lambda j: x[i][j].value() or 0.0) for i in range(requests)])
    rows = np.arange(requests)
    return float(problem.cost_usd[rows, choice].sum()), float(problem.quality[rows, choice].mean())


def timed(solve: Callable[[], Assignment], repeats: int) -> tuple[float, float, Assignment]:
    """Median seconds on the wall and on the processor, and the answer."""
    walls, cores = [], []
    for _ in range(repeats):
        wall, core = time.perf_counter(), time.process_time()
        answer = solve()
        walls.append(time.perf_counter() - wall)
        cores.append(time.process_time() - core)
    return statistics.median(walls), statistics.median(cores), answer


def compare(problem: RoutingProblem, repeats: int, rivals: bool) -> dict[str, object]:
    """One problem through every optimizer that can be expected to end."""
    requests, models = problem.quality.shape
    wall, core, answer = timed(lambda: AutoOptimizer().solve(problem), repeats)
    row: dict[str, object] = {
        "size": f"{requests} x {models}",
        "auto_s": round(wall, 4),
        "auto_processor_s": round(core, 4),
        "engine": answer.engine,
        "gap_percent": round(100 * answer.gap, 6),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if not rivals:
        return row
    size = requests * models
    if size <= EXACT_LIMIT:
        seconds, _, exact = timed(lambda: ExactOptimizer(time_limit_s=30).solve(problem), 1)
        row |= {"exact_time_ratio": round(seconds / wall, 1), "exact_status": exact.status.value}
        row["exact_cost_ratio"] = round(exact.cost_usd / answer.cost_usd, 6)
    others = (
        ("highs_lp", HIGHS_LP_LIMIT, lambda: solve_with_highs(problem, whole=False)),
        ("highs", HIGHS_LIMIT, lambda: solve_with_highs(problem, gap=1e-4)),
        ("cbc", CBC_LIMIT, lambda: solve_with_cbc(problem)),
    )
    for name, limit, solve in others:
        if size <= limit:
            start = time.perf_counter()
            cost, quality = solve()
            row[f"{name}_time_ratio"] = round((time.perf_counter() - start) / wall, 1)
            row[f"{name}_cost_ratio"], row[f"{name}_quality"] = round(cost / answer.cost_usd, 6), round(quality, 6)
    return row


def recorded_forecasts(data: Path, prices: Path) -> Forecasts:
    """Real forecasts: 10,000 draws of the test questions of an outcomes file."""
    from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
    from eccos_core.io.outcomes import read_outcomes
    from eccos_core.io.prices import read_prices
    from eccos_core.simulation.recorded import Draw, forecast_questions
    from eccos_core.simulation.scenario import Service

    outcomes = read_outcomes(data)
    encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
    tariff = read_prices(prices, outcomes.models)
    return forecast_questions(outcomes, tariff, encoder, "retrieval").scenario(Service(), Draw(10_000, 1)).forecast


def recorded_problems(forecast: Forecasts) -> Iterator[tuple[RoutingProblem, float, float]]:
    """The same sizes with real forecasts, targets by size."""
    for (requests, models), (seconds, gap) in TARGETS.items():
        if requests <= len(forecast.quality):
            columns = slice(0, models)
            yield (
                bound_tightly(forecast.quality[:requests, columns], forecast.cost_usd[:requests, columns]),
                seconds,
                gap,
            )


def many_small(forecast: Forecasts) -> dict[str, object]:
    """Every hundred requests of real forecasts a problem of its own, 100 x 5: gaps and times of all of them."""
    requests, models = next(iter(TARGETS))
    gaps, seconds, optimal = [], [], 0
    for start in range(0, len(forecast.quality) - requests + 1, requests):
        part = slice(start, start + requests), slice(0, models)
        problem = bound_tightly(forecast.quality[part], forecast.cost_usd[part])
        wall, _, answer = timed(lambda problem=problem: AutoOptimizer().solve(problem), 3)
        gaps.append(100 * answer.gap)
        seconds.append(wall)
        optimal += answer.status is SolutionStatus.OPTIMAL
    return {
        "problems": len(gaps),
        "size": f"{requests} x {models}",
        "gap_percent": {str(share): round(float(np.quantile(gaps, share)), 4) for share in (0.5, 0.9, 1.0)},
        "auto_s": {str(share): round(float(np.quantile(seconds, share)), 4) for share in (0.5, 0.9, 1.0)},
        "proved_optimal": optimal,
    }


def near_best(requests: int, models: int, seed: int) -> dict[str, object]:
    """Floors close below the best attainable quality, every model capped: the worst gap and the worst time ratio."""
    problem = draw_problem(requests, models, seed)
    problem = replace(problem, capacity=np.full(models, int(np.ceil(0.25 * requests))))
    best = AutoOptimizer().solve(replace(problem, policy=QualityFloor(1.0, "best_effort"))).quality
    _, ordinary, _ = timed(lambda: AutoOptimizer().solve(replace(problem, policy=QualityFloor(best - 0.05))), 5)
    gaps, ratios = [], []
    for distance in NEAR_BEST:
        floor = replace(problem, policy=QualityFloor(best - distance))
        _, core, answer = timed(lambda floor=floor: AutoOptimizer().solve(floor), 3)
        gaps.append(100 * answer.gap)
        ratios.append(core / ordinary)
    return {
        "size": f"{requests} x {models}",
        "seed": seed,
        "problem": "near the best attainable quality",
        "ordinary_processor_s": round(ordinary, 4),
        "worst_gap_percent": round(max(gaps), 4),
        "worst_time_ratio": round(max(ratios), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="problems per size")
    parser.add_argument("--largest", type=int, default=100_000, help="most requests")
    parser.add_argument("--only-auto", action="store_true", help="skip the other solvers")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--data", type=Path, default=SHARED / "qa_math_mix9.jsonl.gz", help="forecasts too")
    parser.add_argument("--prices", type=Path, default=SHARED / "qa_math_mix9.prices.json", help="... at these prices")
    chosen = parser.parse_args()
    rows = []
    if chosen.data.exists():
        forecast = recorded_forecasts(chosen.data, chosen.prices)
        rows.append(many_small(forecast) | {"problem": chosen.data.name})
        print(json.dumps(rows[-1]), flush=True)
        for problem, seconds, gap in recorded_problems(forecast):
            row = compare(problem, 7, rivals=not chosen.only_auto)
            row |= {"problem": chosen.data.name, "target_s": seconds, "target_gap_percent": gap}
            rows.append(row)
            print(json.dumps(row), flush=True)
    for (requests, models), (seconds, gap) in TARGETS.items():
        if requests > chosen.largest:
            continue
        for seed in range(1, chosen.seeds + 1):
            problem = draw_problem(requests, models, seed)
            AutoOptimizer().solve(replace(problem, policy=QualityFloor(0.0)))  # warm caches and imports
            row = compare(problem, 1 if requests >= 100_000 else 7, rivals=not chosen.only_auto and seed == 1)
            row |= {"seed": seed, "target_s": seconds, "target_gap_percent": gap}
            rows.append(row)
            print(json.dumps(row), flush=True)
    for requests, models, seed in ((1000, 10, 1), (2000, 9, 1), (2000, 9, 3), (4000, 10, 2)):
        rows.append(near_best(requests, models, seed))
        print(json.dumps(rows[-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2))
    sys.exit(0)


if __name__ == "__main__":
    main()
