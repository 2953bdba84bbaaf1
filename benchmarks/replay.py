"""How often the intervals of `eccos replay` hold the truth: `python benchmarks/replay.py`.

Logs are drawn from recorded outcomes, in which every model answered every question: a policy chooses, and a share of
the requests goes to a random model. Another policy is then replayed on each log, and its true quality and cost are
known. Both policies weigh forecasts against costs; the forecasts come from the training rows. A number above .93 in
each column is what the intervals promise, with 200 draws give or take .03. `told` is how often the log could tell
which of the two policies is better.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.io.prices import read_prices
from eccos_core.off_policy import BanditFeedback, IntervalEstimate, evaluate_policy
from eccos_core.predictors import fit_predictor

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
# USD per unit of quality of the policy that made the log, and of the one that is replayed
SETS = {
    "qa_math_mix9": (0.002, 0.05),
    "llmrouter_dcrouter": (0.001, 0.05),
    "judged_mix4": (0.01, 1.0),
    "openhands34": (0.5, 5.0),
}
LOGS = ((8000, 1.0), (2000, 1.0), (2000, 0.2))  # requests, share of them that is labelled
EXPLORED = (0.05, 0.2)


class RecordedTraffic:
    """Questions (N) with every model's forecast and recorded quality and cost, all (N, M)."""

    def __init__(self, name: str) -> None:
        train, test = split(read_outcomes(DATA / f"{name}.jsonl.gz"))
        encoder = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()])
        predictor = fit_predictor("linear", train, encoder.encode(train.queries))
        tokens = filled_input_tokens(test)
        forecast = predictor.predict(encoder.encode(test.queries), tokens.mean(axis=1))
        prices = DATA / f"{name}.prices.json"
        if prices.exists():
            tariff = PriceTable.of(read_prices(prices, train.models), train)
            cost, forecast_cost = tariff.recorded_cost_usd(test), tariff.cost_usd(tokens, forecast.output_tokens)
        else:
            cost, forecast_cost = test.cost_usd, np.tile(np.nanmean(train.cost_usd, axis=0), (len(test), 1))
        complete = ~(np.isnan(test.quality) | np.isnan(cost)).any(axis=1)
        self.models = test.models
        self.quality, self.cost = test.quality[complete], cost[complete]
        self.forecast, self.forecast_cost = forecast.quality[complete], forecast_cost[complete]

    def choose(self, usd_per_quality: float) -> np.ndarray:
        return np.argmin(self.forecast_cost - usd_per_quality * self.forecast, axis=1)

    def draw_log(self, logged: np.ndarray, explored: float, requests: int, labelled: float, draw: np.random.Generator):
        """Return (the questions that were drawn, their bandit feedback)."""
        models = len(self.models)
        rows = draw.integers(len(self.quality), size=requests)
        action = np.where(draw.random(requests) < explored, draw.integers(models, size=requests), logged[rows])
        propensity = explored / models + (1 - explored) * (action == logged[rows])
        quality = np.where(draw.random(requests) < labelled, self.quality[rows, action], np.nan)
        return rows, BanditFeedback(
            models=self.models,
            action=action,
            propensity=propensity,
            offered=np.ones((requests, models), dtype=np.bool_),
            quality=quality,
            cost_usd=self.cost[rows, action],
            forecast_quality=self.forecast[rows],
            forecast_cost_usd=self.forecast_cost[rows],
        )


def policy_mean(values: FloatArray, logged: np.ndarray, explored: float) -> float:
    """Return the mean value of the policy that made the log, exploration included."""
    own = values[np.arange(len(values)), logged]
    return float((explored * values.mean(axis=1) + (1 - explored) * own).mean())


def holds(estimate: IntervalEstimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def measure(traffic: RecordedTraffic, prices: tuple[float, float], explored: float, log: tuple[int, float], draws: int):
    """Return the mean of each column over the draws."""
    logged, replayed = (traffic.choose(price) for price in prices)
    every = np.arange(len(replayed))
    quality, cost = traffic.quality[every, replayed].mean(), traffic.cost[every, replayed].mean()
    change = quality - policy_mean(traffic.quality, logged, explored)
    cost_change = cost - policy_mean(traffic.cost, logged, explored)
    found = defaultdict(list)
    for seed in range(draws):
        rows, feedback = traffic.draw_log(logged, explored, *log, np.random.default_rng(seed))
        value = evaluate_policy(feedback, replayed[rows])
        found["quality"].append(holds(value.quality, quality))
        found["change"].append(holds(value.quality_change, change))
        found["cost"].append(holds(value.cost_usd, cost))
        found["cost change"].append(holds(value.cost_change_usd, cost_change))
        found["told"].append(value.quality_change.excludes_zero)
        found["sample"].append(value.effective_sample_size)
        found["width"].append(value.quality_change.high - value.quality_change.low)
        found["error"].append((value.quality_change.value - change) ** 2)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return means | {"truth": float(change), "error": means["error"] ** 0.5}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    wanted = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    print("Share of 95 % intervals that hold the truth, of quality and cost and of their change against the log.\n")
    print(
        "| outcomes | explored | requests | labelled | quality | change | cost | cost change | true change | RMSE | "
        "mean width | sample size | told |"
    )
    print("|---" * 13 + "|")
    for name in wanted.sets:
        traffic = RecordedTraffic(name)
        for explored in EXPLORED:
            for log in LOGS:
                row = measure(traffic, SETS[name], explored, log, wanted.draws)
                covered = " | ".join(f"{row[column]:.3f}" for column in ("quality", "change", "cost", "cost change"))
                print(
                    f"| {name} | {explored:.0%} | {log[0]:,} | {log[1]:.0%} | {covered} | {row['truth']:+.3f} | "
                    f"{row['error']:.3f} | {row['width']:.3f} | {row['sample']:.0f} | {row['told']:.0%} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
