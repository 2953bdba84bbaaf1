"""Fit the predictor that a configuration names, and write it to a folder (`eccos fit`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eccos_core.assembly.encoder import build_encoder
from eccos_core.assembly.finetuned import fine_tune_to_folder, is_fine_tuned
from eccos_core.assembly.history import build_history
from eccos_core.assembly.plan_fit import fit_plans
from eccos_core.assembly.predictor import (
    Progress,
    TrainingData,
    cached_encoder,
    fit_from_config,
    is_online,
    predictor_kind,
)
from eccos_core.config import Config, InMemoryConfig
from eccos_core.errors import InputError
from eccos_core.io.outcomes import read_outcomes
from eccos_core.io.prices import describe_contradicting_costs

if TYPE_CHECKING:
    from eccos_core.plans import PlanReport
    from eccos_core.protocols import Encoder


@dataclass(frozen=True, slots=True)
class FitReport:
    """The result of a fit: the folder, the kind of predictor, and the data it was fitted to.

    warnings: recorded costs that contradict tokens times prices. plans: what was learned of looking at answers, None
    where the outcomes tell nothing of their answers.
    """

    folder: Path
    kind: str
    questions: int
    models: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    plans: PlanReport | None = None


def fit_to_folder(
    config: Config, data: Path | None = None, out: Path | None = None, progress: Progress | None = None
) -> FitReport:
    """Fit to the history or to an outcomes file, and write the predictor to a folder.

    Raises `InputError` if there is nothing to fit or no folder to write to.
    """
    from eccos_core import predictors
    from eccos_core.plans import save_plan_rule
    from eccos_core.plans.artifact import FOLDER as PLANS

    say = progress or (lambda _: None)
    folder = _folder_to_write(config, out)
    encoder = build_encoder(config.encoder, config.conversation)
    started = time.perf_counter()
    if is_fine_tuned(config):
        table = build_history(config.history, encoder).table()[0] if data is None else read_outcomes(data)
        models = fine_tune_to_folder(config, table, folder, progress)
        return FitReport(folder, predictor_kind(config), len(table), models, time.perf_counter() - started)
    training_data = _read_training_data(config, data, encoder, say)
    started = time.perf_counter()
    say(f"learning from {len(training_data.table)} questions")
    predictor = fit_from_config(config, training_data, progress)
    seconds = time.perf_counter() - started
    predictors.save_predictor(predictor, folder, encoder=encoder.name)
    say("learning to judge answers")
    plans = fit_plans(config, predictor, training_data.table)
    if plans is not None:
        save_plan_rule(*plans, folder / PLANS)
    prices = {model.name: (model.usd_per_input_token, model.usd_per_output_token) for model in config.models}
    warnings = tuple(describe_contradicting_costs(training_data.table, prices))
    return FitReport(
        folder,
        predictor_kind(config),
        len(training_data.table),
        predictor.models,
        seconds,
        warnings,
        plans and plans[1],
    )


def _folder_to_write(config: Config, out: Path | None) -> Path:
    if is_online(config):
        raise InputError(
            f"{config.path}: eccos.predictor is an online retrieval. It reads the history at every decision, so there "
            "is nothing to fit and nothing to write. Route without fitting, or remove online: true."
        )
    folder = out or config.predictor.artifact
    if folder is None:
        raise InputError(
            f"{config.path}: nowhere to write the predictor. Give --out FOLDER, or set eccos.predictor.artifact."
        )
    return folder


def _read_training_data(config: Config, data: Path | None, encoder: Encoder, say: Progress) -> TrainingData:
    """Read an outcomes file, or else the history."""
    if data is None and isinstance(config.history, InMemoryConfig):
        data = config.history.outcomes  # the file also says what was answered, which a history does not keep
    if data is None:
        return TrainingData.of(build_history(config.history, encoder))
    table = read_outcomes(data)
    say(f"encoding {len(table)} questions")
    return TrainingData(table, cached_encoder(encoder).encode(table.queries))
