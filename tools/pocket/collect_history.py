"""Makes the bundled history: `python -m tools.pocket.collect_history`.

What `eccos collect` writes when it asks the pocket pool held-out questions; only the latencies are left out, so that
the same weights give the same file. Killed and started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eccos_core.io.files import atomic_writer, read_json_lines
from eccos_core.pocket import pool_config_path, pool_history_path
from eccos_core.pocket.questions import generate_questions

if TYPE_CHECKING:
    from eccos_core.collecting import CollectEvent, CollectReport

QUESTIONS = 4000
SEED = 2502  # no seed brings a question that was trained on; another one than the evaluation's gives other questions
PARAMETERS = {"max_tokens": 24, "temperature": 0.0}


def collect_history(work: Path, count: int = QUESTIONS, seed: int = SEED, config: Path | None = None) -> CollectReport:
    """Asks the pool `count` held-out questions; questions and outcomes stand in the folder `work` afterwards."""
    from eccos_core.assembly.backend import build_backend
    from eccos_core.collecting import CollectOptions, collect, read_questions
    from eccos_core.config import load_config

    pool = load_config(config or pool_config_path())
    asked = work / "questions.jsonl"
    with atomic_writer(asked) as stream:
        for question in generate_questions(count, seed):
            stream.write(json.dumps(question.as_row(), ensure_ascii=False).encode() + b"\n")
    questions = read_questions(asked)
    options = CollectOptions(parameters=PARAMETERS)
    outcomes = work / "outcomes.jsonl"
    return asyncio.run(
        collect(questions, pool.models, build_backend(pool), outcomes, options, observe=_Counter(), source=str(asked))
    )


def pack(outcomes: Path, history: Path) -> int:
    """Writes the outcomes, without latencies, as gzip; the same outcomes give the same bytes. Returns the size."""
    rows = [row for _, row in read_json_lines(outcomes)]
    with atomic_writer(history) as stream, gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:
        for row in rows:
            packed.write(json.dumps(_without_latency(row), ensure_ascii=False).encode() + b"\n")
    return history.stat().st_size


def _without_latency(row: Mapping[str, Any]) -> dict[str, Any]:
    outputs = [{key: value for key, value in output.items() if key != "latency_s"} for output in row["outputs"]]
    return {**row, "outputs": outputs}


class _Counter:
    """A line now and then."""

    def __init__(self) -> None:
        self._done = 0

    def __call__(self, event: CollectEvent) -> None:
        self._done += 1
        if self._done % 2000 == 0:
            sys.stderr.write(f"{self._done} outcomes, {event.spent_usd:.4f} USD\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 when a model failed on a question: then no history is written."""
    parser = argparse.ArgumentParser(prog="python -m tools.pocket.collect_history", description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--work", type=Path, default=Path(".eccos/pocket-history"), help="folder to work in")
    parser.add_argument("--out", type=Path, default=pool_history_path())
    options = parser.parse_args(arguments)
    collected = collect_history(options.work, options.questions, options.seed)
    for model, score in collected.accuracy.items():
        sys.stderr.write(f"{model}: {'-' if score is None else f'{score:.3f}'}\n")
    if collected.failed or collected.ungraded or collected.complete < collected.questions:
        sys.stderr.write(f"not complete: failed {collected.failed}, not graded {collected.ungraded}\n")
        return 1
    size = pack(options.work / "outcomes.jsonl", options.out)
    sys.stderr.write(f"{options.out}: {collected.questions} questions, {size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
