"""Learning from partial feedback on `../shared/data`: `python benchmarks/online.py`.

Every policy meets the questions in random orders, chooses a model, and sees the outcome of that model alone. Reward is
quality - USD / `--usd-per-quality`. First from nothing, then after 300 questions with all outcomes. `paretobandit` runs
where the extra `benchmark` is installed. The static encoder reads the questions, as `eccos evaluate --online` does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path

import numpy as np

from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder
from eccos_core.evaluation.online.new_model import replay_arrival
from eccos_core.evaluation.online.replay import POLICIES, replay_online
from eccos_core.evaluation.online.stream import OnlineStream, read_stream
from eccos_core.learning import OnlineLayer

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SETS = ("qa_math_mix9", "llmrouter_dcrouter", "judged_mix4", "openhands34")


def time_layer(models: int = 9, dimensions: int = 402, labels: int = 2000) -> str:
    """Time the layer's update and its part of a decision, in microseconds (medians)."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((labels, dimensions)).astype(np.float32)
    names = tuple(f"model{index}" for index in range(models))
    layer = OnlineLayer(names, dimensions, questions=vectors)
    update, decide = [], []
    for row in range(labels):
        started = time.perf_counter()
        layer.learn(str(row), names[row % models], vectors[row], 0.1)
        middle = time.perf_counter()
        layer.correct(vectors[row], np.full(models, 0.5))
        update.append(middle - started)
        decide.append(time.perf_counter() - middle)
    return f"{models} models: an update {1e6 * np.median(update):.0f} us, a correction {1e6 * np.median(decide):.0f} us"


def main() -> int:
    """Print the tables, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--warm", nargs="+", type=int, default=(0, 300))
    parser.add_argument("--usd-per-quality", nargs="+", type=float, default=(0.05, 0.2))
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    wanted = parser.parse_args()
    print(f"{time_layer()}; {time_layer(34)}")
    if not DATA.is_dir():
        print(f"skipped: needs {DATA}, which is not here")
        return 0
    names = tuple(name for name in POLICIES if name != "eccos_epsilon")
    if importlib.util.find_spec("pareto_bandit") is None:
        print('paretobandit is left out: pip install "eccos[benchmark]"')
        names = tuple(name for name in names if name != "paretobandit")
    encoder, results = ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()]), []
    for name in wanted.sets:
        prices = DATA / f"{name}.prices.json"
        for usd in wanted.usd_per_quality:
            stream = read_stream(DATA / f"{name}.jsonl.gz", prices if prices.exists() else None, encoder, usd)
            for warm in wanted.warm:
                report = replay_online(stream, names, dataset=name, warm=warm, seeds=wanted.seeds).as_json()
                results.append(report)
                print_table(report)
            print_arrivals(stream, wanted.seeds)
    if wanted.json:
        wanted.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def print_arrivals(stream: OnlineStream, seeds: int) -> None:
    """Print how soon the best model is taken up if it comes half way, one line a seed."""
    best = stream.table.models[int(np.argmax(stream.mean_reward(np.arange(len(stream.table)))))]
    for seed in range(seeds):
        found = replay_arrival(stream, POLICIES["eccos"], best, seed)
        print(
            f"{best} comes half way, seed {seed}: final share {found.final_share:.2f}, 95 % of it after "
            f"{found.requests} requests, exploring {100 * (found.exploration_usd or 0) / found.spent_usd:.1f} % of the "
            "spend",
            flush=True,
        )


def print_table(report: dict) -> None:
    """Print one table of means over the seeds."""
    found = report["policies"]
    columns = list(next(iter(found.values()))["cumulative"])
    print(f"\n{report['dataset']}, {report['warm']} questions with all outcomes, USD {report['usd_per_quality']:g}")
    print("| policy | " + " | ".join(columns) + " | last | worst seed |")
    print("|---" * (len(columns) + 3) + "|")
    for name, each in found.items():
        cells = [*(each["cumulative"][column] for column in columns), each["last_5000"], min(each["seeds"])]
        print(f"| {name} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
