"""Score every router of an evaluation, the references and the single models, on the held-out outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import FloatArray, Forecast
from eccos_core.evaluation.calibration import measure_calibration, measure_length_error
from eccos_core.evaluation.eccos_routers import EccosReplayRouter
from eccos_core.evaluation.kept_promises import measure_kept_promises
from eccos_core.evaluation.metrics import (
    Choices,
    PlanChoices,
    RecordedOutcomes,
    RoutingScore,
    accepted_models,
    calls_to_reach,
    operating_points,
    score_choices,
    score_random_mix,
    score_single,
    sweep_forecast,
)
from eccos_core.evaluation.paper_metrics import (
    PaperMetrics,
    arena_score,
    average_improvement,
    gap_of_choices,
    gap_of_forecast,
    task_accuracy,
)
from eccos_core.evaluation.plan_routers import EscalateReplayRouter
from eccos_core.evaluation.protocol import ReplayRouter, RouterAnswer
from eccos_core.evaluation.report import RouterResult


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutOutcomes:
    """What the test questions are scored with: recorded outcomes, output_tokens (R, M), and the task of each question.

    tasks (R,), or empty where the questions have no label for it.
    """

    recorded: RecordedOutcomes
    output_tokens: FloatArray
    tasks: Sequence[str | None] = ()


def score_router(
    replay_router: ReplayRouter,
    answer: RouterAnswer,
    choices: Choices | PlanChoices,
    held_out: HeldOutOutcomes,
) -> RouterResult:
    """Score a router by its answer to the test questions, and its choices (S, R) at S settings."""
    recorded = held_out.recorded
    result = RouterResult(
        name=replay_router.name,
        role="eccos" if isinstance(replay_router, EccosReplayRouter | EscalateReplayRouter) else "baseline",
        score=(score := score_choices(choices, recorded)),
        paper=_paper_metrics(score, choices, answer, held_out),
        reads=replay_router.reads,
    )
    if isinstance(answer, PlanChoices):
        return replace(result, calls=calls_to_reach(answer, recorded))
    if not isinstance(answer, Forecast) or isinstance(choices, PlanChoices):
        return result
    return replace(
        result,
        calibration=measure_calibration(answer.quality, recorded.quality, recorded.observed),
        length=measure_length_error(answer, held_out.output_tokens),
        promises=measure_kept_promises(answer.quality, choices, recorded),
    )


def reference_results(held_out: HeldOutOutcomes) -> list[RouterResult]:
    """Score the two ends of the scale: a router that knows every outcome, and a random choice."""
    recorded = held_out.recorded
    quality = np.where(recorded.observed, recorded.quality, 0.0)
    choices = sweep_forecast(quality, np.where(recorded.observed, recorded.cost_usd, 0.0), recorded)
    oracle, mix = score_choices(choices, recorded), score_random_mix(recorded)
    return [
        RouterResult("oracle", "reference", oracle, _paper_metrics(oracle, choices, choices, held_out)),
        RouterResult(
            "random_mix",
            "reference",
            mix,
            PaperMetrics(average_improvement(mix.frontier, recorded), arena_score(mix.frontier), None, {}),
        ),
    ]


def single_model_results(held_out: HeldOutOutcomes, taken: set[str]) -> list[RouterResult]:
    """Score each single model, the most accurate first. A model with the name of a router is shown as `model:NAME`."""
    recorded = held_out.recorded
    accuracy = recorded.single_accuracy
    results = []
    for model in (int(model) for model in np.argsort(-accuracy) if not np.isnan(accuracy[model])):
        name = recorded.models[model]
        score = score_single(recorded, model)
        everywhere = np.full(len(recorded.quality), model, dtype=np.int16)
        tasks = task_accuracy(everywhere, recorded, held_out.tasks)
        paper = PaperMetrics(None, arena_score(score.frontier), None, tasks)
        results.append(RouterResult(f"model:{name}" if name in taken else name, "single", score, paper))
    return results


def _paper_metrics(
    score: RoutingScore, choices: Choices | PlanChoices, answer: RouterAnswer, held_out: HeldOutOutcomes
) -> PaperMetrics:
    recorded = held_out.recorded
    cost, accuracy = operating_points(choices, recorded)
    most_accurate = accepted_models(choices)[np.lexsort((cost, -accuracy))[0]]
    gap = None
    if isinstance(answer, Forecast):
        gap = gap_of_forecast(answer.quality, recorded)
    elif not isinstance(answer, PlanChoices):
        gap = gap_of_choices(answer, recorded)
    return PaperMetrics(
        aiq=average_improvement(score.frontier, recorded),
        arena=arena_score(score.frontier),
        gap=gap,
        task_accuracy=task_accuracy(most_accurate, recorded, held_out.tasks),
    )
