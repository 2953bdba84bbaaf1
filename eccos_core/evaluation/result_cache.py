"""Keep the answers of routers on disk, so that a second run with the same data, settings and code fits nothing again.

The key of an answer is a digest of everything that it depends on:

- the encoder's name, which stands for its weights
- the training questions with their outcomes, the test questions with their lengths, the prices
- the router's settings
- the source of eccos' predictors and evaluation, and the versions of the numeric libraries

A change in any of them gives another key. So a stale answer is never used.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import FORECAST_ARRAYS, Forecast, OutcomeTable
from eccos_core.evaluation.asking import digest_answers
from eccos_core.evaluation.metrics import PlanChoices
from eccos_core.evaluation.protocol import EvaluationSplit, ReplayRouter, RouterAnswer, TrainSplit
from eccos_core.evaluation.report import Latency
from eccos_core.io.code_digest import digest_code
from eccos_core.io.files import atomic_writer

MAX_ANSWERS = 200  # the oldest answers beyond these are deleted
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "litellm", "paretobandit")
_SHARED_SOURCES = ("evaluation/protocol.py", "evaluation/recorded_cost.py", "evaluation/metrics.py", "domain", "io")
_SOURCES = {  # what the answer of a router depends on, by the module of its class
    "eccos_core.evaluation.eccos_routers": ("evaluation/eccos_routers.py", "predictors"),
    "eccos_core.evaluation.plan_routers": (
        *("evaluation/plan_routers.py", "evaluation/eccos_routers.py", "evaluation/asking.py", "predictors", "plans"),
    ),
    "eccos_core.evaluation.protocol": (),
}
_BASELINE_SOURCES = ("evaluation/baselines", "evaluation/asking.py", "plans")


@dataclass(frozen=True, slots=True)
class ResultCache:
    """A folder with one .npz file per answer, named by its key."""

    folder: Path

    def load(self, key: str) -> tuple[RouterAnswer, Latency] | None:
        """Load an answer with the latency measured then. Returns None for a file that is absent or damaged."""
        path = self.folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                latency = Latency(**facts["latency"])
                if "accepted" in stored:
                    return PlanChoices(stored["accepted"], stored["cost_usd"], stored["calls"]), latency
                if "choices" in stored:
                    return stored["choices"], latency
                return Forecast(
                    models=tuple(facts["models"]), **{name: stored[name] for name in FORECAST_ARRAYS if name in stored}
                ), latency
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
            return None

    def save(self, key: str, answer: RouterAnswer, latency: Latency) -> None:
        """Save an answer. Deletes the oldest ones beyond `MAX_ANSWERS`."""
        facts: dict[str, Any] = {"latency": {"fit_s": latency.fit_s, "batch_ms": latency.batch_ms}}
        facts["latency"]["single_ms"] = latency.single_ms
        if isinstance(answer, Forecast):
            facts["models"] = list(answer.models)
            kept = {name: getattr(answer, name) for name in FORECAST_ARRAYS}
            arrays = {name: array for name, array in kept.items() if array is not None}
        elif isinstance(answer, PlanChoices):
            arrays = {"accepted": answer.accepted, "cost_usd": answer.cost_usd, "calls": answer.calls}
        else:
            arrays = {"choices": answer}
        content = io.BytesIO()
        np.savez_compressed(content, facts=np.array(json.dumps(facts)), **arrays)
        with atomic_writer(self.folder / f"{key}.npz") as stream:
            stream.write(content.getvalue())
        by_age = sorted(self.folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-MAX_ANSWERS]:
            path.unlink(missing_ok=True)


def cache_key(replay_router: ReplayRouter, train_split: TrainSplit, held_out: EvaluationSplit) -> str | None:
    """Return the digest of everything an answer depends on, None for a router whose source is not part of eccos."""
    settings: object = replay_router  # the repr of a dataclass holds its settings, that of another object its address
    module = type(replay_router).__module__
    if not is_dataclass(settings) or not module.startswith("eccos_core.evaluation"):
        return None
    code = digest_code((*_SHARED_SOURCES, *_SOURCES.get(module, _BASELINE_SOURCES)), _LIBRARIES)
    total = hashlib.sha256(f"{settings!r}\0{code}\0{train_split.table.models}".encode())
    table, price_table = train_split.table, held_out.price_table
    arrays: tuple[np.ndarray[Any, Any], ...] = (
        *(table.quality, table.input_tokens, table.output_tokens, train_split.cost_usd),
        *(held_out.input_tokens, held_out.eligible),
        *(price_table.usd_per_input_token, price_table.usd_per_output_token, price_table.output_known),
        price_table.typical_cost_usd,
    )
    for values in arrays:
        total.update(f"{values.dtype}{values.shape}".encode())
        total.update(np.ascontiguousarray(values).data)
    labels = [[name, table.labels[name]] for name in sorted(table.labels)]
    total.update(_digest_told(table).encode())
    if held_out.answers is not None:
        total.update(held_out.answers.digest().encode())
    total.update(json.dumps([train_split.encoder, table.queries, labels, held_out.queries]).encode())
    return total.hexdigest()


def _digest_told(table: OutcomeTable) -> str:
    """Return a digest of the answers and features of a table."""
    return digest_answers(table.answers, table.features)
