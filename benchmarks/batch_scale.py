"""How long a plan of a million requests takes with 1 and 2 workers, how near to the best, and what 100 would bring.

    python benchmarks/batch_scale.py                                    # 1,000,000 requests
    ECCOS_BENCH_REQUESTS=50000 python benchmarks/batch_scale.py         # a smaller run

`eccos plan --output` plans 1,000,000 requests for 10 models under a floor and slots, with the static encoder and the
hybrid predictor. It needs no data: questions are drawn from a made-up vocabulary of 40 subjects, and so are the graded
answers of 1,000 questions that the predictor is fitted to. So quality says nothing about real models here.

CPU time is that of the command and of all its workers, user and system. It depends little on what else runs. Memory is
the sum over all processes of their resident sets, sampled five times a second, so pages that processes share count more
than once. Then a run is killed (SIGKILL) while it forecasts, and started again. Last, both runs give a model of more
workers: see `describe_workers`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

MODELS, SUBJECTS, WORDS, GRADED = 10, 40, 60, 1_000
FLOOR = 0.72
MODEL = """- model_name: model-{name}
  litellm_params: {{model: openai/model-{name}, api_key: none}}
  model_info: {{input_cost_per_token: {price:.3e}, output_cost_per_token: {output:.3e}, max_concurrency: {slots}}}
"""
OURS = f"""
eccos:
  encoder: static
  predictor: {{kind: hybrid, artifact: fitted}}
  history: {{outcomes: outcomes.jsonl}}
  decision_log: off
  policy: {{quality_floor: {FLOOR}}}
"""


def make_world(folder: Path, requests: int) -> None:
    """Write the pool, the graded answers and the requests."""
    random = np.random.default_rng(17)
    ability = np.linspace(-0.4, 2.2, MODELS)
    affinity, difficulty = random.normal(0, 0.9, (SUBJECTS, MODELS)), random.normal(0, 0.8, SUBJECTS)
    price = 1e-7 * 10 ** np.linspace(0, 2, MODELS)
    pool = "".join(
        MODEL.format(name=chr(97 + j), price=price[j], output=4 * price[j], slots=128 if j < 5 else 64)
        for j in range(MODELS)
    )
    (folder / "eccos.yaml").write_text(f"model_list:\n{pool}{OURS}")
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(random.choice(letters, random.integers(3, 9))) for _ in range(SUBJECTS * WORDS)]

    def questions(count: int) -> tuple[np.ndarray, list[str]]:
        subject = random.integers(0, SUBJECTS, count)
        lengths = random.integers(8, 40, count)
        at = random.integers(0, WORDS, int(lengths.sum())) + WORDS * np.repeat(subject, lengths)
        words, texts, start = [vocabulary[i] for i in at.tolist()], [], 0
        for length in lengths.tolist():
            texts.append(" ".join(words[start : start + length]))
            start += length
        return subject, texts

    subject, texts = questions(GRADED)
    good = random.random((GRADED, MODELS)) < 1 / (
        1 + np.exp(-(ability + affinity[subject] - difficulty[subject, None]))
    )
    with (folder / "outcomes.jsonl").open("w") as stream:
        for i, text in enumerate(texts):
            outputs = [
                {
                    "model": f"model-{chr(97 + j)}",
                    "correct": int(good[i, j]),
                    "output_tokens": int(random.lognormal(5 + 0.05 * j, 0.5)) + 1,
                }
                for j in range(MODELS)
            ]
            stream.write(json.dumps({"id": f"q{i}", "query": text, "outputs": outputs}) + "\n")
    with (folder / "requests.jsonl").open("w") as stream, (folder / "fifth.jsonl").open("w") as fifth:
        for start in range(0, requests, 50_000):
            for i, text in enumerate(questions(min(50_000, requests - start))[1], start=start):
                line = json.dumps({"id": f"r{i}", "query": text}) + "\n"
                stream.write(line)
                if i < requests // 5:
                    fifth.write(line)


def command(folder: Path, *arguments: str) -> list[str]:
    """A command of eccos on the pool of the folder."""
    return [sys.executable, "-m", "eccos_core.cli", *arguments, "-c", str(folder / "eccos.yaml"), "--json"]


@dataclass(frozen=True)
class Run:
    """One run of the command: its summary, its seconds, the CPU seconds of all its processes, and the peak in MB."""

    summary: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_mb: float

    def show(self, what: str) -> None:
        """Print one row."""
        summary = self.summary
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items())
        print(
            f"{what:<32} {summary['requests']:>9,} {self.wall_s:>7.1f} s  CPU {self.cpu_s:>7.1f} s = "
            f"{1e6 * self.cpu_s / summary['requests']:>4.0f} us a request  {self.peak_mb:>5.0f} MB  "
            f"gap {100 * summary['gap']:.6f} %  {summary['passes']} passes  ({stages})",
            flush=True,
        )


def plan(folder: Path, requests: str, output: str, workers: int) -> Run:
    """Plan a file."""
    arguments = ("plan", "-r", str(folder / requests), "-o", str(folder / output), "--workers", str(workers))
    started, cpu_before, peak = time.perf_counter(), _cpu_of_children(), 0
    with subprocess.Popen(command(folder, *arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        told = running.stdout
        assert told is not None
        process = psutil.Process(running.pid)
        while running.poll() is None:
            peak = max(peak, _resident(process))
            time.sleep(0.2)
        summary = json.loads(told.read())
    if "error" in summary:
        raise SystemExit(f"the plan failed: {summary['error']['message']}")
    return Run(summary, time.perf_counter() - started, _cpu_of_children() - cpu_before, peak / 2**20)


def _cpu_of_children() -> float:
    """Return the CPU seconds, user and system, of every process that has ended so far under this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def describe_workers(one: Run, two: Run) -> None:
    """Print how long W workers take, from the runs with one and two: Amdahl's law, and what each pass exchanges.

    - Serial, whatever W: loading, cutting, and the joint solution of the undecided requests (`solve` less `passes`).
    - Parallel, divided by W: forecasting, the passes and writing of the run with one worker.
    - Exchange: every pass sends one task to each shard and collects its sums, in one process. That does not shrink with
      W. It is what the passes of two workers take above half of those of one. It also has what two workers lose by
      sharing a machine, so it is an upper estimate.
    - More workers than shards have nothing to do.
    """
    alone, beside = one.summary["seconds"], two.summary["seconds"]
    serial = alone["load"] + alone["cut"] + alone["solve"] - alone["passes"] + one.wall_s - _stages(alone)
    start = beside["load"]  # every worker loads the predictor too, all at once
    parallel = alone["forecast"] + alone["passes"] + alone["write"]
    exchange = max(beside["passes"] - alone["passes"] / 2, 0.0)
    shards = one.summary["shards"]
    print(
        f"\nserial {serial:.1f} s ({100 * serial / one.wall_s:.1f} % of one worker), parallel {parallel:.1f} s, "
        f"exchange {exchange:.1f} s = {1e3 * exchange / one.summary['passes']:.0f} ms a pass over {shards} shards"
    )
    for workers in (1, 2, 10, 100):
        busy = min(workers, shards)
        seconds = serial + parallel / busy + (start + exchange if workers > 1 else 0.0)
        measured = {1: f", measured {one.wall_s:.1f} s", 2: f", measured {two.wall_s:.1f} s"}.get(workers, "")
        idle = f", {workers - busy} of them idle: take a smaller --shard-rows" if busy < workers else ""
        print(f"{workers:>4} workers: {seconds:.1f} s, {one.wall_s / seconds:.1f} times as fast{measured}{idle}")


def _stages(seconds: dict[str, float]) -> float:
    return sum(value for stage, value in seconds.items() if stage != "passes")


def kill_and_resume(folder: Path) -> None:
    """Kill a run while it forecasts, start it again, and say what it did again."""
    arguments = ("plan", "-r", str(folder / "fifth.jsonl"), "-o", str(folder / "killed"), "--workers", "2")
    small = ("--shard-rows", "2048")
    finished: list[Path] = []
    with subprocess.Popen(
        command(folder, *arguments, *small),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        while len(finished) < 2 and running.poll() is None:
            finished = sorted((folder / "killed" / "forecast").glob("0*.npz"))
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
    finished = sorted((folder / "killed" / "forecast").glob("0*.npz"))
    before = {path: path.stat().st_mtime_ns for path in finished}
    again = subprocess.run(command(folder, *arguments, *small), check=True, capture_output=True, text=True)
    summary = json.loads(again.stdout)
    untouched = sum(path.stat().st_mtime_ns == at for path, at in before.items())
    print(
        f"killed with {len(finished)} of {summary['shards']} shards finished: the next run forecast "
        f"{summary['forecast_again']} shards and left {untouched} untouched"
    )
    if summary["forecast_again"] != summary["shards"] - len(finished) or untouched != len(finished):
        raise SystemExit("a resumed run repeated a finished shard")


def main() -> None:
    """Print the table."""
    requests = int(os.environ.get("ECCOS_BENCH_REQUESTS", "1000000"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        make_world(folder, requests)
        subprocess.run(command(folder, "fit"), check=True, capture_output=True)
        print(f"{MODELS} models, floor {FLOOR}; data and predictor made in {time.perf_counter() - started:.0f} s")
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        one = plan(folder, "requests.jsonl", "one", 1)
        one.show("1 worker")
        two = plan(folder, "requests.jsonl", "two", 2)
        two.show("2 workers")
        plan(folder, "requests.jsonl", "two", 2).show("2 workers again, none forecast")
        answers = [run.summary["cost_usd"] for run in (one, two)]
        if answers[0] != answers[1]:
            raise SystemExit(f"one and two workers disagree on the cost: {answers}")
        kill_and_resume(folder)
        describe_workers(one, two)


if __name__ == "__main__":
    main()
