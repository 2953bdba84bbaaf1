"""How well a reward model grades answers that it has not seen: `python benchmarks/reward.py`.

Two sets: what the pocket pool answers to questions drawn here, with the full texts, and `qa_math_mix9_answers` of
`../shared/data`, which keeps no more than the final letter or number. Each fit learns from training questions, and is
measured on all test questions. The encoder is `static`.

- "AUC": the probability that a good answer has a higher reward than a bad one. "within": the same among the answers of
  one model, averaged over models.
- "Brier": mean squared error of the reward. "means": of each model's mean quality in the training answers.
- "bias": the largest distance between the mean reward and the mean quality of a model.

A second table asks what the labels are worth to a router. `GRADED` training questions have true grades. The other
training questions have none ("graded only"), the rewards of a model fitted to the graded ones ("and rewards"), or true
grades ("and grades"). A predictor (`retrieval` and `hybrid`) learns from each, and is scored on the test questions.

- "area": mean accuracy over budgets, against the best mix of single models, in points.
- "lost": (grades - rewards) / grades, the share of what learning gains over that mix that the rewards lose.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eccos_core.assembly.backend import build_backend
from eccos_core.assembly.encoder import build_encoder
from eccos_core.collecting import CollectOptions, collect
from eccos_core.collecting.questions import read_questions
from eccos_core.config import StaticConfig, load_config
from eccos_core.domain import BoolArray, FloatArray, OutcomeTable
from eccos_core.evaluation.metrics import RecordedOutcomes, score_forecast, score_random_mix
from eccos_core.grading.reward import fit_reward
from eccos_core.grading.reward.report import report_rewards
from eccos_core.io.answers import GradedAnswer, read_answers
from eccos_core.io.files import atomic_writer
from eccos_core.io.outcome_tables import with_models
from eccos_core.io.outcomes import read_outcomes, split
from eccos_core.pocket import pool_config_path
from eccos_core.pocket.questions import generate_questions
from eccos_core.predictors import fit_predictor
from eccos_core.protocols import Encoder
from eccos_core.routing.pricing import cost_usd

MIX = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "qa_math_mix9_answers.jsonl.gz"
POCKET_QUESTIONS = 1500
SEED = 41
SIZES = (200, 1000, 3000)
GRADED = (100, 300)
PREDICTORS = ("retrieval", "hybrid")


def collect_pocket(folder: Path) -> Path:
    """Ask all pocket models, and keep their answers."""
    asked, outcomes = folder / "questions.jsonl", folder / "answers.jsonl"
    with atomic_writer(asked) as stream:
        for question in generate_questions(POCKET_QUESTIONS, SEED):
            stream.write(json.dumps(question.as_row()).encode() + b"\n")
    pool = load_config(pool_config_path())
    options = CollectOptions(parameters={"max_tokens": 24, "temperature": 0.0}, keep_answers=True)
    asyncio.run(collect(read_questions(asked), pool.models, build_backend(pool), outcomes, options, source=str(asked)))
    return outcomes


def measure(name: str, outcomes: Path) -> None:
    """Print one line for each number of training answers."""
    train, test = (set(part.queries) for part in split(read_outcomes(outcomes)))
    graded = read_answers(outcomes)
    known = [each for each in graded if each.answer.question in train]
    unseen = [each for each in graded if each.answer.question in test - train]
    encoder = build_encoder(StaticConfig())
    order = np.random.default_rng(SEED).permutation(len(known))
    for size in SIZES:
        learned = [known[row] for row in order[:size]]
        reward, _ = fit_reward(learned, encoder)
        seen_models = [each for each in unseen if each.answer.model in reward.models]
        report = report_rewards(seen_models, reward.score([each.answer for each in seen_models]))
        within = np.mean([each.auc for each in report.models if each.auc is not None])
        bias = max(abs(each.reward - each.quality) for each in report.models)
        print(
            f"{name:22}{size:9}{len(seen_models):9}{report.auc:8.3f}{within:8.3f}{report.brier:8.3f}"
            f"{brier_of_means(learned, seen_models):8.3f}{bias:8.3f}",
            flush=True,
        )


def measure_router(outcomes: Path) -> None:
    """Print what a router gains from true grades, and from rewards in their place."""
    pool = load_config(pool_config_path())
    names = tuple(model.name for model in pool.models)
    train, test = split(with_models(read_outcomes(outcomes), names))
    encoder = build_encoder(StaticConfig())
    vectors, unseen = encoder.encode(train.queries), encoder.encode(test.queries)
    charged = cost_usd(pool.models, test.input_tokens, test.output_tokens)
    recorded = RecordedOutcomes(test.models, test.quality, charged, ~np.isnan(test.quality))
    mix = score_random_mix(recorded).area or 0.0
    order = np.random.default_rng(SEED).permutation(len(train))
    for count in GRADED:
        graded = np.zeros(len(train), dtype=np.bool_)
        graded[order[:count]] = True
        rewards = reward_labels(outcomes, train, graded, encoder)
        tables = {
            "graded only": (train.rows(graded), vectors[graded]),
            "and rewards": (replace(train, quality=rewards), vectors),
            "and grades": (train, vectors),
        }
        for kind in PREDICTORS:
            gains = {}
            for name, (table, rows) in tables.items():
                forecast = fit_predictor(kind, table, rows).predict(unseen, test.input_tokens.mean(axis=1))
                priced = cost_usd(pool.models, test.input_tokens, forecast.output_tokens)
                gains[name] = 100 * ((score_forecast(forecast.quality, priced, recorded).area or 0.0) - mix)
            lost = 1 - gains["and rewards"] / gains["and grades"]
            shown = "".join(f"{gains[name]:13.2f}" for name in tables)
            print(f"{kind:12}{count:8}{len(train) - count:9}{shown}{lost:8.0%}", flush=True)


def reward_labels(outcomes: Path, train: OutcomeTable, graded: BoolArray, encoder: Encoder) -> FloatArray:
    """Return the grades (N, M) of the graded rows, and rewards learned from them in all other rows."""
    row_of = {query: row for row, query in enumerate(train.queries)}
    known = [each for each in read_answers(outcomes) if each.answer.question in row_of]
    learned = [each for each in known if graded[row_of[each.answer.question]]]
    reward, _ = fit_reward(learned, encoder)
    labels = train.quality.copy()
    others = [each.answer for each in known if not graded[row_of[each.answer.question]]]
    for answer, score in zip(others, reward.score(others), strict=True):
        labels[row_of[answer.question], train.models.index(answer.model)] = score
    return labels


def brier_of_means(learned: Sequence[GradedAnswer], unseen: Sequence[GradedAnswer]) -> float:
    """Return the mean squared error of the training means."""
    qualities: dict[str, list[float]] = {}
    for each in learned:
        qualities.setdefault(each.answer.model, []).append(each.quality)
    means = {model: float(np.mean(values)) for model, values in qualities.items()}
    return float(np.mean([(means[each.answer.model] - each.quality) ** 2 for each in unseen]))


def main() -> None:
    """Print the table."""
    print(f"{'answers of':22}{'learned':>9}{'tested':>9}{'AUC':>8}{'within':>8}{'Brier':>8}{'means':>8}{'bias':>8}")
    with tempfile.TemporaryDirectory() as folder:
        pocket = collect_pocket(Path(folder))
        measure("pocket pool", pocket)
        columns = "".join(f"{name:>13}" for name in ("graded only", "and rewards", "and grades"))
        print(f"\n{'predictor':12}{'graded':>8}{'labelled':>9}{columns}{'lost':>8}")
        measure_router(pocket)
        print()
    if MIX.exists():
        measure("qa_math_mix9_answers", MIX)
    else:
        print(f"{MIX} is not here, so nothing of it was measured")


if __name__ == "__main__":
    main()
