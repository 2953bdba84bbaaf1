"""Certificates of the optimizers against every assignment, on small problems: `python benchmarks/exact.py`.

Problems of 4 to 15 requests and 2 to 5 models, with coarse and fine numbers, tight and loose caps, floors and budgets
that are just attainable. The optimum is found by enumeration in integers. Exits 1 if an optimizer certifies a wrong
optimum or bound, or refuses an attainable floor or budget.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from every_assignment import draw_small_problem

from eccos_core.domain import SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer import AutoOptimizer, ExactOptimizer


def main() -> int:
    """Print how many problems were proved, and every fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    chosen = parser.parse_args()
    optimizers = {"auto": AutoOptimizer(), "exact": ExactOptimizer()}
    proved, refused, seconds = Counter[str](), Counter[str](), Counter[str]()
    faults = 0
    for seed in range(chosen.first, chosen.first + chosen.problems):
        small = draw_small_problem(seed)
        for name, optimizer in optimizers.items():
            started = time.perf_counter()
            answer = small.solve(optimizer)
            seconds[name] += time.perf_counter() - started
            if isinstance(answer, InfeasibleError):
                refused[name] += 1
            else:
                proved[name] += answer.status is SolutionStatus.OPTIMAL
            if fault := small.fault(answer):
                faults += 1
                print(f"seed {seed}, {name}: {fault}", flush=True)
    for name in optimizers:
        print(
            f"{name}: proved {proved[name]:,} and refused {refused[name]:,} of {chosen.problems:,}, "
            f"{1000 * seconds[name] / chosen.problems:.1f} ms a problem"
        )
    print(f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
