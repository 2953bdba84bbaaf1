"""The second part of `eccos demo`: the pocket pool starts without a single outcome, and learns while it serves.

Real questions come one by one. A router decides, the model answers, a grader looks, and the router gets the label of
that one answer. So it sees what a service sees, and never what another model would have said. The single models beside
it are from the recorded outcomes of the same questions.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from eccos_core.domain import Request
from eccos_core.io.outcome_tables import with_models
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.pocket import pool_config_path, pool_history_path
from eccos_core.router import Router
from eccos_core.routing.pricing import cost_usd
from eccos_core.workflows.demo import grade_answer, read_answer_key

QUESTIONS = 1000
BLOCKS = 5
USD_PER_QUALITY_POINT = 3e-6  # what one point of quality is worth here
_USD_PER_QUALITY = 100 * USD_PER_QUALITY_POINT
SETTINGS = f"""
eccos:
  encoder: static
  history: in_memory
  decision_log: off
  policy: {{usd_per_quality_point: {USD_PER_QUALITY_POINT}}}
  learning: {{explore: thompson, share: 0.3, budget_usd_per_day: 0.01}}
"""


@dataclass(frozen=True, slots=True)
class LearningBlock:
    """Some questions in a row. accuracy in [0, 1]. usd: for one question. shares: calls per model, sum 1.

    value: accuracy less cost, in points, at the price of quality. best_single_value: that of the best single model.
    """

    first: int
    last: int
    accuracy: float
    usd: float
    value: float
    best_single_value: float
    shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class LearningReport:
    """What the router did. best_single: the model with the best value over all questions."""

    questions: int
    blocks: tuple[LearningBlock, ...]
    best_single: str
    seconds: float


def learn_from_nothing(
    questions: int = QUESTIONS, blocks: int = BLOCKS, progress: Callable[[str], None] | None = None
) -> LearningReport:
    """Ask `questions` questions of the bundled history's training rows, in a random order that never changes."""
    say = progress or (lambda _: None)
    started = time.perf_counter()
    pool = pool_config_path().read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="eccos-demo-") as folder:
        file = Path(folder) / "eccos.yaml"
        file.write_text(pool[: pool.index("\neccos:")] + SETTINGS, encoding="utf-8")
        router = Router.from_yaml(file)
    names = tuple(model.name for model in router.models)
    train, _ = split(with_models(read_outcomes(pool_history_path()), names))
    asked = train.rows(np.random.default_rng(0).permutation(len(train))[:questions])
    answer_key = read_answer_key()
    single = asked.quality - cost_usd(router.models, asked.input_tokens, asked.output_tokens) / _USD_PER_QUALITY
    best = int(single.mean(axis=0).argmax())
    grades, paid, models = np.empty(len(asked)), np.empty(len(asked)), []
    for row, (question_id, query) in enumerate(zip(asked.question_ids, asked.queries, strict=True)):
        if row % 50 == 0:
            say(f"starting without outcomes, and learning: {row} of {len(asked)} questions")
        completion = router.complete(Request.of(query, parameters={"max_tokens": 24, "temperature": 0.0}))
        grades[row] = grade_answer(answer_key, question_id, query, completion.text)
        paid[row] = completion.cost_usd
        models.append(completion.model)
        assert completion.decision is not None
        router.record(completion.decision.id, grades[row])
    router.close()
    edges = np.linspace(0, len(asked), blocks + 1).astype(int).tolist()
    found = []
    for first, last in pairwise(edges):
        calls = Counter(models[first:last])
        accuracy, usd = float(grades[first:last].mean()), float(paid[first:last].mean())
        found.append(
            LearningBlock(
                first=first,
                last=last,
                accuracy=accuracy,
                usd=usd,
                value=100 * (accuracy - usd / _USD_PER_QUALITY),
                best_single_value=100 * float(single[first:last, best].mean()),
                shares={name: calls[name] / (last - first) for name in names},
            )
        )
    return LearningReport(len(asked), tuple(found), names[best], time.perf_counter() - started)
