"""How long a decision takes, how many a second a batch makes, and how much memory a warm router holds.

Text in, `Decision` out, floor policy, 9 models, 9,192 questions in the history: real questions of
`../shared/data/qa_math_mix9`. First `eccos fit` writes the predictor in a process of its own (its seconds and peak
memory are told; questions are embedded before, from the cache where they are known). Then a fresh process builds the
router from YAML over a folder of Chroma, decides, and tells its memory and times. Medians; the encoder's own time is
measured in the same run, so that the share of the rest can be seen. Processor seconds do not depend on what else the
machine does as much as seconds of the clock. Does nothing where the data is absent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
DECIDED, SINGLES, BATCH = 50, 300, {"static": 10_000, "minilm": 500}
ROUNDS = 3

MODEL = """- model_name: {name}
  litellm_params: {{model: openai/{name}, api_key: none}}
  model_info: {{input_cost_per_token: {prices[0]}, output_cost_per_token: {prices[1]}}}
"""
OURS = """
eccos:
  encoder: {encoder}
  predictor: {{kind: hybrid, artifact: fitted}}
  history: {{path: history}}
  decision_log: off
  policy: {{quality_floor: 0.7}}
"""


def prepare(folder: Path, encoder: str) -> None:
    """The configuration, the questions that are asked, and the history, in a folder."""
    from eccos_core.assembly.encoder import build_encoder
    from eccos_core.assembly.history import build_history
    from eccos_core.assembly.predictor import cached_encoder
    from eccos_core.config import load_config
    from eccos_core.history.ingest import ingest
    from eccos_core.io.outcomes import read_outcomes, split, write_outcomes
    from eccos_core.io.prices import read_prices

    table = read_outcomes(DATA / "qa_math_mix9.jsonl.gz")
    prices = read_prices(DATA / "qa_math_mix9.prices.json", table.models)
    train, test = split(table)
    pool = "".join(MODEL.format(name=name, prices=prices[name]) for name in table.models)
    plain = f"model_list:\n{pool}{OURS.format(encoder=encoder)}"
    (folder / "eccos.yaml").write_text(plain)
    (folder / "learning.yaml").write_text(f"{plain}  learning: {{explore: thompson, share: 0.05}}\n")
    (folder / "plans.yaml").write_text(plain.replace("quality_floor: 0.7", "quality_floor: 0.7, escalate: {}"))
    asked = random.Random(0).sample(test.queries, len(test.queries))  # the file is sorted by subject
    (folder / "questions.json").write_text(json.dumps(asked))
    write_outcomes(folder / "train.jsonl.gz", train)
    config = load_config(folder / "eccos.yaml")
    made = build_encoder(config.encoder)
    ingest(folder / "train.jsonl.gz", build_history(config.history, made), cached_encoder(made))


def fit(folder: Path) -> dict[str, float]:
    """`eccos fit` in a process of its own."""
    command = [sys.executable, "-m", "eccos_core.cli", "fit", "-c", str(folder / "eccos.yaml"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        told = json.loads(running.stdout.read())
        _, _, used = os.wait4(running.pid, 0)
    return {"fit_s": told["seconds"], "fit_peak_mb": used.ru_maxrss / 1024}


def serve(folder: Path, encoder: str) -> dict[str, Any]:
    """What a router built from YAML in this process takes: memory, and time."""
    import psutil

    from eccos_core import Router
    from eccos_core.domain import Request
    from eccos_core.predictors import load_predictor

    questions: list[str] = json.loads((folder / "questions.json").read_text())
    started = time.perf_counter()
    load_predictor(folder / "fitted")
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    router = Router.from_yaml(folder / "eccos.yaml")
    build_s = time.perf_counter() - started
    for question in questions[-DECIDED:]:
        router.decide(question)
    memory = psutil.Process().memory_info().rss / 2**20
    own = router.decider.encoder
    singles = questions[:SINGLES]
    encoding, deciding = [], []
    for text in singles:  # in turn, so that a busy moment of the machine meets both
        encoding += timed(own.encode, [[text]])
        deciding += timed(router.decide, [text])
    processor = timed(router.decide, singles, time.process_time)
    batch = [Request.of(questions[i % len(questions)]) for i in range(BATCH[encoder])]
    wall, busy = zip(*(timed_twice(router.route, batch) for _ in range(ROUNDS)), strict=True)
    variants = {name: time_variant(folder / f"{name}.yaml", router, singles) for name in ("learning", "plans")}
    return {
        "encoder": encoder,
        **{f"{name}_{key}": value for name, found in variants.items() for key, value in found.items()},
        "decision_ms": 1000 * statistics.median(deciding),
        "encoder_ms": 1000 * statistics.median(encoding),
        "decision_processor_ms": 1000 * statistics.median(processor),
        "ratio": statistics.median(deciding) / statistics.median(encoding),
        "batch": BATCH[encoder],
        "requests_per_second": len(batch) / statistics.median(wall),
        "requests_per_processor_second": len(batch) / statistics.median(busy),
        "artifact_load_s": load_s,
        "router_from_yaml_s": build_s,
        "warm_memory_mb": memory,
    }


def time_variant(path: Path, plain: Any, questions: Sequence[str]) -> dict[str, float]:
    """Time decisions of another configuration, in turn with those of the plain router, and what a label teaches."""
    from eccos_core import Router

    router = Router.from_yaml(path)
    labelling, deciding, usual = [], [], []
    for place, text in enumerate(questions):
        decision = router.decide(text)
        if (learner := router.parts.learner) is not None:
            vector = router.decider.encoder.encode([text])[0]
            labelling += timed(partial(learner.learn, decision.id, decision.model, vector), [1.0], time.process_time)
        if place >= len(questions) // 3:  # by then the online layer has learned
            usual += timed(plain.decide, [text], time.process_time)
            deciding += timed(router.decide, [text], time.process_time)
    return {
        "decision_processor_ms": 1000 * statistics.median(deciding),
        "ratio_to_plain": statistics.median(deciding) / statistics.median(usual),
        **({"label_processor_ms": 1000 * statistics.median(labelling)} if labelling else {}),
    }


def timed(
    call: Callable[[Any], object], items: Sequence[Any], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of each call."""
    taken = []
    for item in items:
        started = clock()
        call(item)
        taken.append(clock() - started)
    return taken


def timed_twice(call: Callable[[Any], object], item: object) -> tuple[float, float]:
    """Seconds of one call by the clock, and of the processor."""
    started, busy = time.perf_counter(), time.process_time()
    call(item)
    return time.perf_counter() - started, time.process_time() - busy


def measure(encoder: str) -> dict[str, Any]:
    """One encoder, from its outcomes to its numbers, each part in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="eccos-decision-") as name:
        folder = Path(name)
        again = [sys.executable, __file__, "--encoder", encoder, "--in", name]
        subprocess.run([*again, "--part", "prepare"], check=True)
        fitted = fit(folder)
        done = subprocess.run([*again, "--part", "serve"], check=True, stdout=subprocess.PIPE, text=True)
        return {**json.loads(done.stdout.splitlines()[-1]), **fitted}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", choices=("static", "minilm", "both"), default="both")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("prepare", "serve"), help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "prepare":
        prepare(given.folder, given.encoder)
        return 0
    if given.part == "serve":
        print(json.dumps(serve(given.folder, given.encoder)))
        return 0
    if not DATA.is_dir():
        print(f"needs {DATA}, which is not here")
        return 0
    rows = []
    for name in ("static", "minilm") if given.encoder == "both" else (given.encoder,):
        rows.append(measure(name))
        print(json.dumps({k: round(each, 3) if isinstance(each, float) else each for k, each in rows[-1].items()}))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
