"""Builds what labels answers in the background, and loads its reward model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eccos_core.config import Config

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
    from eccos_core.labelling import BackgroundLabeller, DailyBudget, JudgeSettings, ShadowSettings

    judge, shadow, broken_json = config.labels.judge, config.shadow, config.labels.signals.get("invalid_json")
    if judge is None and reward is None and shadow is None and broken_json is None:
        return None
    kept = config.decision_log.path

    def budget(purpose: str, usd: float) -> DailyBudget:
        return DailyBudget(purpose, usd, None if kept is None else kept.with_name("spending.sqlite"))

    return BackgroundLabeller(
        config.models,
        backend,
        workload,
        judge=JudgeSettings(judge.model, judge.share, budget("judge", judge.budget_usd_per_day)) if judge else None,
        shadow=ShadowSettings(shadow.models, shadow.share, budget("shadow", shadow.budget_usd_per_day))
        if shadow
        else None,
        reward=reward,
        broken_json=broken_json,
        view=config.conversation,
    )
