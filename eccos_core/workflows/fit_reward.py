"""Fit the reward model of a pool, and write it to a folder (`eccos fit-reward`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from eccos_core.assembly.encoder import build_encoder
from eccos_core.assembly.predictor import Progress, cached_encoder
from eccos_core.config import Config
from eccos_core.errors import InputError
from eccos_core.grading.reward import RewardReport, fit_reward, save_reward
from eccos_core.io.answers import read_answers


@dataclass(frozen=True, slots=True)
class FitRewardReport:
    """The folder that was written, and how well the reward model does on held-out answers."""

    folder: Path
    held_out: RewardReport
    seconds: float


def fit_reward_to_folder(
    config: Config, outcomes: Path, folder: Path, progress: Progress | None = None
) -> FitRewardReport:
    """Fit a reward model to the answers of an outcomes file, and write it to a folder.

    Answers of models outside the pool are left out. Raises `InputError` for too few answers, or a model of the pool
    without any, `DataError` for a file that cannot be read, and `ArtifactError` where the folder holds something else.
    """
    pool = [model.name for model in config.models]
    graded = [each for each in read_answers(outcomes) if each.answer.model in pool]
    if not graded:
        raise InputError(
            f"{outcomes} keeps no graded answer of this pool ({', '.join(pool)}). Write one with "
            "`eccos collect --keep-answers`."
        )
    answered = {each.answer.model for each in graded}
    if missing := [name for name in pool if name not in answered]:
        raise InputError(
            f"{outcomes} keeps no graded answer of {', '.join(missing)}. A reward model serves the whole pool, so "
            "collect answers of every model."
        )
    if progress is not None:
        progress(f"reading {len(graded)} answers")
    started = time.perf_counter()
    reward, held_out = fit_reward(graded, cached_encoder(build_encoder(config.encoder, config.conversation)))
    save_reward(reward, held_out, folder)
    return FitRewardReport(folder, held_out, time.perf_counter() - started)
