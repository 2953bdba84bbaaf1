"""What quantised pocket models are worth: `python benchmarks/quantise.py`.

Each pocket model in int8, in int4 and in int4 after a calibration answers the 4,000 questions of the bundled history.
The calibration reads 256 questions that the models were trained on. The base's answers are recorded. "same" is the
share of answers that stay the same, letter for letter. Then routers learn the pool with and without variants, from the
same questions, and answer the same others. Exits 1 when pocket-large loses more than 0.3 points in int8, or in int4
after a calibration, or when that takes more than 30 % of the bytes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eccos_core.backends.local.quantise_folder import QuantisedVariant, quantise_folder
from eccos_core.backends.local.quantised import SCHEMES
from eccos_core.backends.local.second_moments import MOST_PROMPTS
from eccos_core.encoders import StaticEncoder
from eccos_core.evaluation.baselines import routers_by_name
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.io.files import read_json_lines
from eccos_core.io.outcomes import read_outcomes
from eccos_core.pocket import pocket_names, pocket_path, pool_history_path
from eccos_core.pocket.questions import generate_questions
from eccos_core.workflows.quantise import find_base_entry, pool_entries
from tools.pocket.collect_history import collect_history

MOST_POINTS_LOST, MOST_BYTES = 0.3, 0.30
CALIBRATED = "calibrated"
ROUTERS = ("prior", "hybrid")


def main() -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        variants, entries = _quantise(work)
        config = work / "pool.yaml"
        config.write_text(yaml.safe_dump({"model_list": entries, "eccos": {"encoder": "static"}}))
        collect_history(work, config=config)
        base, found = _read(pool_history_path()), _read(work / "outcomes.jsonl")
        pools = _evaluate(work, list(variants))
    print("model                            bytes  of float16  of float32    right     base    points ± error     same")
    missed = False
    for name, variant in variants.items():
        right, texts = found[name]
        base_right, base_texts = base["-".join(name.split("-")[:2])]
        points = 100 * (right - base_right)
        error = points.std(ddof=1) / np.sqrt(len(points))
        if name in ("pocket-large-int8", f"pocket-large-int4-{CALIBRATED}"):
            missed |= -points.mean() > MOST_POINTS_LOST
        if name == f"pocket-large-int4-{CALIBRATED}":
            missed |= variant.share > MOST_BYTES
        size = f"{variant.weight_bytes:9,d}  {variant.share:10.1%}  {variant.share / 2:10.1%}"
        print(
            f"{name:29} {size}  {right.mean():7.2%}"
            f"  {base_right.mean():7.2%}  {points.mean():+7.2f} ± {error:.2f}  {(texts == base_texts).mean():9.1%}"
        )
    print("\npool                       router     area   most right")
    for pool, report in pools.items():
        for router in ROUTERS:
            score = report.results[router].score
            print(f"{pool:25}  {router:7} {score.area:7.4f}  {score.best_accuracy:11.2%}")
    return 1 if missed else 0


def _quantise(work: Path) -> tuple[dict[str, QuantisedVariant], list[dict[str, Any]]]:
    variants, entries = {}, []
    prompts = [question.query for question in generate_questions(MOST_PROMPTS, seed=5, split="train")]
    for name in pocket_names():
        folder = pocket_path(name)
        base = find_base_entry(folder, None)
        plain = quantise_folder(folder, SCHEMES, work)
        calibrated = quantise_folder(folder, ["int4"], work / CALIBRATED, prompts)
        last = pool_entries(folder, calibrated, base)
        last[0]["model_name"] += f"-{CALIBRATED}"
        added = [*pool_entries(folder, plain, base), *last]
        variants |= {entry["model_name"]: each for entry, each in zip(added, plain + calibrated, strict=True)}
        entries += added
    for entry in entries:
        del entry["model_info"]["assume_like"]  # the bases are not in this pool
    return variants, entries


def _evaluate(work: Path, variants: Sequence[str]) -> dict[str, EvaluationReport]:
    """Evaluate routers on the pool alone, with the variants of pocket-large, and with all variants."""
    recorded = {row["id"]: row for _, row in read_json_lines(pool_history_path())}
    pools: dict[str, list[str]] = {
        "4 models": [],
        "and those of pocket-large": [v for v in variants if "large" in v],
        "and all 12 variants": list(variants),
    }
    reports = {}
    for pool, added in pools.items():
        file = work / "both.jsonl"
        with file.open("w", encoding="utf-8") as stream:
            for _, row in read_json_lines(work / "outcomes.jsonl"):
                more = [output for output in row["outputs"] if output["model"] in added]
                base = recorded[row["id"]]
                stream.write(json.dumps({**base, "outputs": base["outputs"] + more}) + "\n")
        reports[pool] = evaluate(read_outcomes(file), {}, routers_by_name(ROUTERS), {"text": StaticEncoder()})
    return reports


def _read(outcomes: Path) -> dict[str, tuple[Any, Any]]:
    """Return per model whether it is right (N,) and its texts (N,), in the order of the questions' ids."""
    rows = sorted((row for _, row in read_json_lines(outcomes)), key=lambda row: row["id"])
    outputs = [{each["model"]: each for each in row["outputs"]} for row in rows]
    return {
        name: (
            np.array([output[name]["correct"] for output in outputs]),
            np.array([output[name].get("answer", "") for output in outputs]),
        )
        for name in outputs[0]
    }


if __name__ == "__main__":
    sys.exit(main())
