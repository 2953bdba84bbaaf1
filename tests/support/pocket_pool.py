"""The bundled pocket pool with a small part of its history, the fast encoder and a fast predictor."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from eccos_core.io.files import read_json_lines
from eccos_core.pocket import pool_config_path, pool_history_path

QUESTIONS = 120


def write_outcomes_part(folder: Path) -> Path:
    """An outcomes file with the first questions of the bundled history."""
    part = folder / "outcomes.jsonl"
    rows = itertools.islice(read_json_lines(pool_history_path()), QUESTIONS)
    part.write_text("".join(json.dumps(row) + "\n" for _, row in rows))
    return part


def write_pool_config(folder: Path, history: str) -> Path:
    """`eccos.yaml` in `folder`: the pocket models, this history, a decision log that keeps text."""
    models = pool_config_path().read_text().partition("\neccos:")[0]
    file = folder / "eccos.yaml"
    file.write_text(f"""{models}
eccos:
  encoder: static
  predictor: retrieval
  history: {history}
  decision_log: {{path: decisions.sqlite, log_prompts: true}}
  policy: {{quality_floor: 0.6, on_infeasible: best_effort}}
""")
    return file
