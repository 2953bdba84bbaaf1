"""How long a command takes from a cold start: `python benchmarks/startup.py`.

Runs `eccos ask` and `eccos route` on the pocket pool in fresh processes, with an empty and with a filled cache folder.
Prints the median of wall-clock seconds and of CPU seconds. `--source FOLDER` measures another checkout.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
QUESTION = "What is the capital of France?"


def run_once(source: Path, command: str, cache: Path) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one command in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(source), "ECCOS_CACHE_DIR": str(cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as elsewhere:
        subprocess.run(
            [sys.executable, "-m", "eccos_core.cli", command, QUESTION],
            cwd=elsewhere,
            env=environment,
            check=True,
            capture_output=True,
        )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(source: Path, command: str, runs: int, fresh: bool) -> tuple[float, float]:
    """Medians over `runs`. `fresh`: every run has an empty cache folder of its own."""
    seen = []
    with tempfile.TemporaryDirectory() as folder:
        if not fresh:
            run_once(source, command, Path(folder))
        for number in range(runs):
            cache = Path(folder) / str(number) if fresh else Path(folder)
            seen.append(run_once(source, command, cache))
    return statistics.median(wall for wall, _ in seen), statistics.median(cpu for _, cpu in seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=HERE, help="the checkout to measure")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--commands", nargs="+", default=["route", "ask"])
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{options.source}, {os.cpu_count()} cores, load average {load:.1f}, medians of {options.runs} runs")
    for command in options.commands:
        for fresh in (True, False):
            wall, cpu = measure(options.source, command, options.runs, fresh)
            print(
                f"eccos {command:6} {'empty' if fresh else 'filled'} cache: {wall:6.2f} s, {cpu:6.2f} s of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
