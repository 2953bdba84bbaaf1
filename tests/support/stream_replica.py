"""One replica as a process that decides drawn requests under a budget and under a floor over windows.

Run it as `python stream_replica.py '{"url": ..., "requests_per_second": 60, ...}'`. It prints `ready`, works for
`seconds`, and prints the time, quality and cost of each decision as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress

import numpy as np

from eccos_core.domain import Model
from eccos_core.errors import Overloaded
from eccos_core.streaming import FloorTarget, InitialPrices, RateTarget, StreamController
from eccos_core.workload.shared import SharedSettings, SharedWorkload

COST_USD = np.array([0.001, 0.004, 0.02])


def main() -> None:
    """Work as the argument says."""
    asked = json.loads(sys.argv[1])
    models = [Model(name, 0.0, 0.0) for name in ("small", "middle", "large")]
    workload = SharedWorkload(models, SharedSettings(asked["url"], name=asked.get("name", "streams")))
    money = StreamController(RateTarget(asked["usd_per_hour"], "hour"), InitialPrices(0.03))
    floor = StreamController(FloorTarget(asked["floor"], "window", window=asked["window"]), InitialPrices(0.03))
    workload.share_streams({"money": money.share(workload.wake), "floor": floor.share(workload.wake)})
    money.correct_cost(asked.get("spent_usd", 0.0))
    print("ready", flush=True)
    sys.stdin.readline()
    draw, everybody = np.random.default_rng(asked.get("seed", 0)), np.ones(3, dtype=np.bool_)
    began, paid, answers = time.monotonic(), [], []
    for number in range(int(asked["seconds"] * asked["requests_per_second"])):
        time.sleep(max(0.0, began + number / asked["requests_per_second"] - time.monotonic()))
        quality = np.clip(draw.normal([0.5, 0.7, 0.9], 0.1), 0, 1)
        with suppress(Overloaded):
            choice = money.decide(quality, COST_USD, everybody)
            paid.append((time.monotonic(), choice.quality, choice.cost_usd))
        choice = floor.decide(quality, COST_USD, everybody)
        answers.append((time.monotonic(), choice.quality, choice.cost_usd))
    print(json.dumps({"paid": paid, "answers": answers, "price": floor.usd_per_quality}), flush=True)
    workload.close()


if __name__ == "__main__":
    main()
