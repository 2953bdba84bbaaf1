"""`eccos fit`: learns the predictor that a configuration names, and writes it to a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from eccos_core.assembly.build import build_encoder, build_history
from eccos_core.assembly.finetuned import fine_tune_to_folder, is_fine_tuned
from eccos_core.assembly.predictor import (
    Progress,
    TrainingData,
    cached_encoder,
    fit_from_config,
    is_online,
    predictor_kind,
)
from eccos_core.config import Config
from eccos_core.errors import InputError
from eccos_core.io.outcomes import read_outcomes


@dataclass(frozen=True, slots=True)
class FitReport:
    """What `eccos fit` wrote, and from what."""

    folder: Path
    kind: str
    questions: int
    models: tuple[str, ...]
    seconds: float


def fit_to_folder(
    config: Config, data: Path | None = None, out: Path | None = None, progress: Progress | None = None
) -> FitReport:
    """Learns from the history (or an outcomes file) and writes the predictor to a folder."""
    from eccos_core import predictors

    say = progress or (lambda _: None)
    if is_online(config):
        raise InputError(
            f"{config.path}: eccos.predictor is an online retrieval, which asks the history at every decision: there is "
            "nothing to fit and nothing to write; route with it as it is, or leave out online: true"
        )
    folder = out or config.predictor.artifact
    if folder is None:
        raise InputError(
            f"{config.path}: nowhere to write the predictor; give --out FOLDER, or set eccos.predictor.artifact"
        )
    encoder = build_encoder(config.encoder)
    started = time.perf_counter()
    if is_fine_tuned(config):
        table = build_history(config.history, encoder).table()[0] if data is None else read_outcomes(data)
        models = fine_tune_to_folder(config, table, folder, progress)
        return FitReport(folder, predictor_kind(config), len(table), models, time.perf_counter() - started)
    if data is None:
        known = TrainingData.of(build_history(config.history, encoder))
    else:
        table = read_outcomes(data)
        say(f"embedding {len(table)} questions")
        known = TrainingData(table, cached_encoder(encoder).encode(table.queries))
    started = time.perf_counter()
    say(f"learning from {len(known.table)} questions")
    predictor = fit_from_config(config, known, progress)
    seconds = time.perf_counter() - started
    predictors.save_predictor(predictor, folder, encoder=encoder.name)
    return FitReport(folder, predictor_kind(config), len(known.table), predictor.models, seconds)
