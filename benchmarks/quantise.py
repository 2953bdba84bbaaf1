"""What quantised pocket models are worth: `python benchmarks/quantise.py`.

Each pocket model in int8 and int4 answers the 4,000 questions of the bundled history. The base's answers are recorded
there. "same" is the share of answers that stay the same, letter for letter. Then routers learn the pool with and
without variants, from the same questions, and answer the same others. Exits 1 when pocket-large loses more than 0.3
points in int8.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eccos_core.backends.local.quantise_folder import QuantisedVariant, quantise_folder
from eccos_core.backends.local.quantised import SCHEMES
from eccos_core.encoders import StaticEncoder
from eccos_core.evaluation.baselines import routers_by_name
from eccos_core.evaluation.replay import evaluate
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.io.files import read_json_lines
from eccos_core.io.outcomes import read_outcomes
from eccos_core.pocket import pocket_names, pocket_path, pool_history_path
from eccos_core.workflows.quantise import find_base_entry, pool_entries
from tools.pocket.collect_history import collect_history

MOST_POINTS_LOST = 0.3
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
        pools = _evaluate(work)
    print("model                 bytes  of float16  of float32    right     base    points ± error     same")
    lost = 0.0
    for name, variant in variants.items():
        right, texts = found[name]
        base_right, base_texts = base[name.rpartition("-")[0]]
        points = 100 * (right - base_right)
        error = points.std(ddof=1) / np.sqrt(len(points))
        if name == "pocket-large-int8":
            lost = -points.mean()
        size = f"{variant.weight_bytes:9,d}  {variant.share:10.1%}  {variant.share / 2:10.1%}"
        print(
            f"{name:18} {size}  {right.mean():7.2%}"
            f"  {base_right.mean():7.2%}  {points.mean():+7.2f} ± {error:.2f}  {(texts == base_texts).mean():9.1%}"
        )
    print("\npool                       router     area   most right")
    for pool, report in pools.items():
        for router in ROUTERS:
            score = report.results[router].score
            print(f"{pool:25}  {router:7} {score.area:7.4f}  {score.best_accuracy:11.2%}")
    return 1 if lost > MOST_POINTS_LOST else 0


def _quantise(work: Path) -> tuple[dict[str, QuantisedVariant], list[dict[str, Any]]]:
    variants, entries = {}, []
    for name in pocket_names():
        folder = pocket_path(name)
        made = quantise_folder(folder, SCHEMES, work)
        variants |= {f"{name}-{variant.scheme}": variant for variant in made}
        entries += pool_entries(folder, made, find_base_entry(folder, None))
    for entry in entries:
        del entry["model_info"]["assume_like"]  # the bases are not in this pool
    return variants, entries


def _evaluate(work: Path) -> dict[str, EvaluationReport]:
    """Evaluate routers on the pool alone, with the variants of pocket-large, and with all variants."""
    recorded = {row["id"]: row for _, row in read_json_lines(pool_history_path())}
    variants = [f"{name}-{scheme}" for name in pocket_names() for scheme in SCHEMES]
    pools: dict[str, list[str]] = {
        "4 models": [],
        "and 2 of pocket-large": [v for v in variants if "large" in v],
        "and all 8 variants": variants,
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
