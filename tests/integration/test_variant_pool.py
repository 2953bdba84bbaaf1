"""Quantised variants in a pool, from the command to decisions: a router that knows them is not worse for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eccos_core import Router
from eccos_core.cli import app
from eccos_core.cli.output import DONE, run
from eccos_core.io.files import read_json_lines
from eccos_core.pocket import pool_config_path
from eccos_core.pocket.questions import generate_questions

QUESTIONS = 60
FLOORS = (0.65, 0.8)


def realised(file: Path, rows: list[dict[str, Any]], floor: float) -> float:
    """The mean quality of what a router chooses at a floor, as the outcomes tell it."""
    right = [{output["model"]: output["correct"] for output in row["outputs"]} for row in rows]
    settings = yaml.safe_load(file.read_text())
    settings["eccos"]["policy"]["quality_floor"] = floor
    file.write_text(yaml.safe_dump(settings))
    with Router.from_yaml(file) as router:
        chosen = [router.decide(row["query"]).model for row in rows]
    return float(np.mean([each[model] for each, model in zip(right, chosen, strict=True)]))


def test_a_pool_with_variants_is_collected_fitted_and_not_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["quantise", "pocket-large", "--to", "int8,int4"]) == DONE
    variants = yaml.safe_load(capsys.readouterr().out)
    pool = yaml.safe_load(pool_config_path().read_text())["model_list"]
    Path("questions.jsonl").write_text(
        "".join(json.dumps(question.as_row()) + "\n" for question in generate_questions(QUESTIONS, seed=9))
    )
    pools = {"with": pool + variants, "without": pool}
    for name, models in pools.items():
        policy = {"quality_floor": 0.6, "on_infeasible": "best_effort"}
        settings = {"encoder": "static", "predictor": {"kind": "hybrid", "artifact": f"./{name}"}, "policy": policy}
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"model_list": models, "eccos": settings}))
        Path(f"collect-{name}.yaml").write_text(yaml.safe_dump({"model_list": models, "eccos": {"encoder": "static"}}))
    asked = ["--questions", "questions.jsonl", "--out", "with.jsonl", "--max-tokens", "24"]
    assert run(app, ["collect", "--config", "collect-with.yaml", *asked]) == DONE
    rows = [row for _, row in read_json_lines(Path("with.jsonl"))]
    assert {len(row["outputs"]) for row in rows} == {6}
    kept = [{**row, "outputs": [o for o in row["outputs"] if "-int" not in o["model"]]} for row in rows]
    Path("without.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    for name in pools:
        told = ["fit", "--config", f"collect-{name}.yaml", "--data", f"{name}.jsonl", "--out", name]
        assert run(app, told) == DONE
    for floor in FLOORS:
        found = {name: realised(Path(f"{name}.yaml"), rows, floor) for name in pools}
        assert found["with"] >= found["without"] - 1 / QUESTIONS, (floor, found)
