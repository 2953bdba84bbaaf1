"""Builds what labels answers in the background, and loads its reward model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.config import Config
from eccos_core.io.daily_budget import FILE_NAME, DailyBudget

if TYPE_CHECKING:
    from eccos_core.grading.reward import RewardModel
    from eccos_core.protocols import AnswerObserver, Backend, Encoder, Workload


def load_configured_reward(config: Config, encoder: Encoder) -> RewardModel | None:
    """Load the reward model that the configuration names, or None. `encoder` is the one that the configuration names.

    Raises `ArtifactError` for a folder without one, and for one of another encoder or pool.
    """
    from eccos_core.grading.reward import load_reward

    folder = config.labels.reward
    return None if folder is None else load_reward(folder, encoder, [model.name for model in config.models])


def build_labeller(
    config: Config, reward: RewardModel | None, backend: Backend, workload: Workload
) -> AnswerObserver | None:
    """Build what labels answers. None where the configuration asks for nothing of the kind."""
    from eccos_core.labelling import BackgroundLabeller, JudgeSettings, ShadowSettings

    judge, shadow, broken_json = config.labels.judge, config.shadow, config.labels.signals.get("invalid_json")
    if judge is None and reward is None and shadow is None and broken_json is None:
        return None
    return BackgroundLabeller(
        config.models,
        backend,
        workload,
        judge=JudgeSettings(judge.model, judge.share, daily_budget(config, "judge", judge.budget_usd_per_day))
        if judge
        else None,
        shadow=ShadowSettings(shadow.models, shadow.share, daily_budget(config, "shadow", shadow.budget_usd_per_day))
        if shadow
        else None,
        reward=reward,
        broken_json=broken_json,
        view=config.conversation,
    )


def daily_budget(config: Config, purpose: str, usd: float) -> DailyBudget:
    """Build a budget for each day. What was spent is kept beside the decision log, where there is one."""
    log = config.decision_log.path
    return DailyBudget(purpose, usd, None if log is None else log.with_name(FILE_NAME))
