"""How long a plan of a million requests takes, with how much memory, how near to the best, and what a resumed run does.

    python benchmarks/batch_scale.py                       # 1,000,000 requests
    python benchmarks/batch_scale.py --requests 50000      # a smaller run

`eccos plan --output` plans 1,000,000 requests for 10 models under a floor and slots, with the static encoder and the
hybrid predictor. It needs no data: questions are drawn from a made-up vocabulary of 40 subjects, and so are the graded
answers of 1,000 questions that the predictor is fitted to. So quality says nothing about real models here. A fifth of
the requests is planned with one worker and with two. Memory is the sum over all processes of their resident sets,
sampled five times a second, so pages that processes share count more than once. Last, a run is killed (SIGKILL) while
it forecasts, and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
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


def plan(folder: Path, requests: str, output: str, workers: int) -> tuple[dict[str, Any], float, float]:
    """Plan a file. Returns the summary, the seconds of the whole command, and the peak memory in MB."""
    arguments = ("plan", "-r", str(folder / requests), "-o", str(folder / output), "--workers", str(workers))
    started, peak = time.perf_counter(), 0
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
    return summary, time.perf_counter() - started, peak / 2**20


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def show(what: str, summary: dict[str, Any], seconds: float, peak_mb: float) -> None:
    """Print one row."""
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items())
    print(
        f"{what:<34} {summary['requests']:>9,} {seconds:>7.1f} s {peak_mb:>7.0f} MB  gap {100 * summary['gap']:.6f} %  "
        f"{summary['passes']} passes  ({stages})",
        flush=True,
    )


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        make_world(folder, asked.requests)
        subprocess.run(command(folder, "fit"), check=True, capture_output=True)
        print(f"{MODELS} models, floor {FLOOR}; data and predictor made in {time.perf_counter() - started:.0f} s")
        print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        show("a fifth, 1 worker", *plan(folder, "fifth.jsonl", "one", 1))
        show("a fifth, 2 workers", *plan(folder, "fifth.jsonl", "two", 2))
        show("all, 2 workers", *plan(folder, "requests.jsonl", "all", 2))
        show("all again: no shard is forecast", *plan(folder, "requests.jsonl", "all", 2))
        kill_and_resume(folder)


if __name__ == "__main__":
    main()
