"""What both integrations need to score an answer with a reward model."""

from __future__ import annotations

from pathlib import Path

from eccos_core.assembly.reward_grader import build_reward_grader
from eccos_core.config import load_config
from eccos_core.errors import InputError
from eccos_core.grading.reward import RewardGrader


def resolve_grader(
    owner: str, config: str | Path | None, folder: str | Path | None, grader: RewardGrader | None
) -> RewardGrader:
    """Return `grader`, or build the one that a configuration and a folder describe.

    `owner` is the class that needs it, for messages. Without `folder` it is that of `eccos.labels.reward`. Raises
    `InputError` when neither is given, and what `build_reward_grader` raises.
    """
    if grader is not None:
        return grader
    if config is None:
        raise InputError(
            f"{owner} needs a reward model: {owner}(config='eccos.yaml', reward='./reward'), as `eccos fit-reward` "
            "wrote it"
        )
    return build_reward_grader(load_config(config), None if folder is None else Path(folder))


def check_threshold(owner: str, threshold: float) -> float:
    """Return the least score that passes. Raises `InputError` outside [0, 1]."""
    if not 0 <= threshold <= 1:
        raise InputError(f"{owner}: threshold is {threshold}, must be in [0, 1]")
    return threshold
