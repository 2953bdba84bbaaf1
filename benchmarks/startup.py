"""How long a command takes from a cold start: `python benchmarks/startup.py`.

Runs `eccos route` and `eccos ask` on the pocket pool in fresh processes, with an empty and with a filled cache folder.
Then `service`: a small program that asks four hosted models through LiteLLM, with a fitted artifact and the static
encoder. It prints medians of the seconds to the first line of the answer, of CPU seconds in all, and of peak memory.
`--source FOLDER` measures another checkout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from eccos_core.testing import ModelServer

HERE = Path(__file__).resolve().parents[1]
QUESTION = "What is the capital of France?"
# the time is that to the first answer; a hundred more show the memory of a warm router
SERVICE = """
import sys
from eccos_core import Router
with Router.from_yaml(sys.argv[1]) as router:
    print(router.complete("What is 3 plus 4?").text)
    for number in range(100):
        assert router.complete(f"What is {number} plus 4?").text
"""
CONFIG = """
model_list:
{entries}
eccos:
  encoder: static
  predictor: {{kind: hybrid, artifact: {artifact}}}
  history: in_memory
  decision_log: off
  policy: {{quality_floor: 0.8, on_infeasible: best_effort}}
"""
ENTRY = """  - model_name: {name}
    litellm_params: {{model: openai/x, api_base: {url}, api_key: none}}
    model_info: {{input_cost_per_token: {price}, output_cost_per_token: {price}}}
"""


class Run(NamedTuple):
    """One run of a program: seconds to the first line that it prints, CPU seconds in all, peak memory in MB."""

    first_line_s: float
    cpu_s: float
    peak_mb: float


def run_once(source: Path, arguments: list[str], cache: Path) -> Run:
    """Run a program in a fresh process, in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(source), "ECCOS_CACHE_DIR": str(cache)}
    with tempfile.TemporaryDirectory() as elsewhere:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-u", *arguments],
            cwd=elsewhere,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        process.stdout.readline()
        first_line_s = time.perf_counter() - started
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return Run(first_line_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measure(source: Path, arguments: list[str], runs: int, *, fresh: bool) -> Run:
    """Medians over `runs`. `fresh`: every run has an empty cache folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        if not fresh:
            run_once(source, arguments, Path(folder))
        seen = [run_once(source, arguments, Path(folder, str(i) if fresh else "")) for i in range(runs)]
    return Run(*(statistics.median(values) for values in zip(*seen, strict=True)))


def write_service(folder: Path, source: Path, url: str) -> list[str]:
    """Write the program and the configuration of the service. Return its arguments."""
    names = ("pocket-small", "pocket-medium", "pocket-maths", "pocket-large")
    entries = "".join(ENTRY.format(name=name, url=url, price=f"{5**place}.0e-8") for place, name in enumerate(names))
    artifact = source / "eccos_core" / "pocket" / "predictor"
    (folder / "eccos.yaml").write_text(CONFIG.format(entries=entries, artifact=artifact), encoding="utf-8")
    (folder / "service.py").write_text(SERVICE, encoding="utf-8")
    return [str(folder / "service.py"), str(folder / "eccos.yaml")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=HERE, help="the checkout to measure")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["route", "ask", "service"], default=["route", "ask", "service"])
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{options.source}, {os.cpu_count()} cores, load average {load:.1f}, medians of {options.runs} runs")
    with ModelServer() as server, tempfile.TemporaryDirectory() as folder:
        programs = {
            "route": ["-m", "eccos_core.cli", "route", QUESTION],
            "ask": ["-m", "eccos_core.cli", "ask", QUESTION],
            "service": write_service(Path(folder), options.source, server.url),
        }
        for name in options.only:
            for fresh in (True, False):
                run = measure(options.source, programs[name], options.runs, fresh=fresh)
                print(
                    f"{name:8} {'empty' if fresh else 'filled'} cache: {run.first_line_s:5.2f} s, "
                    f"{run.cpu_s:5.2f} s of CPU, {run.peak_mb:4.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
