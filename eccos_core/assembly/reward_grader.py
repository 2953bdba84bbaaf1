"""Build the grader of a reward model, with the encoder and the pool of a configuration."""

from __future__ import annotations

from pathlib import Path

from eccos_core.assembly.encoder import build_encoder
from eccos_core.assembly.predictor import cached_encoder
from eccos_core.config import Config
from eccos_core.errors import InputError
from eccos_core.grading.reward import RewardGrader, load_reward


def build_reward_grader(config: Config, folder: Path | None = None) -> RewardGrader:
    """Build the grader of the reward model in `folder`, or in the one that `eccos.labels.reward` names.

    Raises `InputError` where neither names one, and `ArtifactError` for a folder without a reward model, and for one of
    another encoder or another pool.
    """
    chosen = folder if folder is not None else config.labels.reward
    if chosen is None:
        raise InputError(
            "the grader reward needs a reward model. Fit one with `eccos fit-reward`, and name its folder with "
            '--reward, with eccos.labels.reward, or in the question: {"name": "reward", "folder": "./reward"}'
        )
    models = [model.name for model in config.models]
    return RewardGrader(load_reward(chosen, cached_encoder(build_encoder(config.encoder, config.conversation)), models))
