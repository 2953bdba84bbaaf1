"""A pool of two priced models with assumed qualities, and a decision log of its traffic."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np

from eccos_core.decision_log import CompletionEntry, DecisionEntry, DecisionLog
from eccos_core.domain import Completion, Decision
from eccos_core.encoders import ConcatenatedEncoder, StaticEncoder, SurfaceEncoder

CONFIG = """
model_list:
- model_name: small
  litellm_params: {{model: eccos-local/pocket-small}}
  model_info: {{input_cost_per_token: 1.0e-7, output_cost_per_token: 1.0e-7, assumed_quality: 0.6}}
- model_name: large
  litellm_params: {{model: eccos-local/pocket-large}}
  model_info: {{input_cost_per_token: 1.0e-5, output_cost_per_token: 1.0e-5, assumed_quality: 0.9}}
eccos:
  encoder: {encoder}
  predictor: prior
  history: in_memory
  decision_log: {log}
  policy: {{usd_per_quality_point: {price}}}
"""
FORECAST = {"small": (0.6, 0.001), "large": (0.9, 0.010)}


def write_config(
    folder: Path,
    name: str = "eccos.yaml",
    *,
    price: float = 0.0,
    log: str = "{path: log.sqlite}",
    encoder: str = "static",
) -> Path:
    """At a price of 0 every request goes to `small`, at a high one to `large`."""
    file = folder / name
    file.write_text(CONFIG.format(price=price, log=log, encoder=encoder))
    return file


def write_log(
    path: Path,
    rows: list[tuple[str, float, float, float | None]],
    *,
    vectors: bool = True,
    log_prompts: bool = False,
    ago_s: float = 0.0,
) -> None:
    """Write a log of (model, propensity, USD paid, label or None), one second apart, the oldest first."""
    texts = [f"Question {row}?" for row in range(len(rows))]
    encoded = (
        ConcatenatedEncoder([StaticEncoder(), SurfaceEncoder()]).encode(texts) if vectors else np.ones((len(rows), 2))
    )
    log = DecisionLog(path, log_prompts=log_prompts)
    start = time.time() - ago_s - len(rows)
    for row, (model, propensity, paid, _) in enumerate(rows):
        name = f"d{row}"
        decision = Decision(
            name,
            f"r{row}",
            model,
            *FORECAST[model][:1],
            0.1,
            FORECAST[model][1],
            None,
            "because",
            propensity=propensity,
        )
        vector = np.asarray(encoded[row], dtype=np.float32)
        log.add_decision(DecisionEntry(decision, texts[row], vector, 10, FORECAST, at=start + row))
        log.add_completion(CompletionEntry(name, Completion("yes", model, 10, 5, paid, 0.1)))
    log.close()
    labels = [(label, start + row, f"d{row}") for row, (*_, label) in enumerate(rows) if label is not None]
    with sqlite3.connect(path) as connection:  # `DecisionLog.label` waits for the disk each time
        connection.executemany(
            "UPDATE decisions SET label = ?, labelled_at = ?, label_source = 'human' WHERE id = ?", labels
        )
