"""Builds what labels answers in the background, and loads its reward model.

The next version of a configuration keeps what stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from eccos_core.config import Config
from eccos_core.decision_log import PostgresDecisionLog
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.daily_spending import (
    FILE_NAME,
    DailySpending,
    ExchangedSpending,
    PostgresSpending,
    SqliteSpending,
)

if TYPE_CHECKING:
    from eccos_core.decision_log import BaseDecisionLog
    from eccos_core.grading.reward import RewardModel
    from eccos_core.protocols import AnswerObserver, Backend, Encoder, Workload

_Stamp: TypeAlias = tuple[tuple[str, int, int], ...]  # name, size and time of change of each file


@dataclass(frozen=True, slots=True, eq=False)
class LoadedReward:
    """A reward model, and what it was loaded from."""

    model: RewardModel
    folder: Path
    stamp: _Stamp
    encoder: Encoder
    models: tuple[str, ...]


def load_configured_reward(config: Config, encoder: Encoder, before: LoadedReward | None = None) -> LoadedReward | None:
    """Load the reward model that the configuration names, or None. `encoder` is the one that the configuration names.

    `before` is returned where folder, files, encoder and pool are still the same. Raises `ArtifactError` for a folder
    without one, and for one of another encoder or pool.
    """
    from eccos_core.grading.reward import load_reward

    folder = config.labels.reward
    if folder is None:
        return None
    models, stamp = tuple(model.name for model in config.models), _stamp(folder)
    if (
        before is not None
        and (before.folder, before.stamp, before.models) == (folder, stamp, models)
        and before.encoder is encoder
    ):
        return before
    return LoadedReward(load_reward(folder, encoder, models), folder, stamp, encoder, models)


def build_labeller(
    config: Config,
    reward: RewardModel | None,
    backend: Backend,
    workload: Workload,
    log: BaseDecisionLog | None,
    before: tuple[Config, AnswerObserver | None] | None = None,
) -> AnswerObserver | None:
    """Build what labels answers. None where the configuration asks for nothing of the kind.

    `before`: the configuration in use and what labels answers under it. It goes on where nothing of its own changes.
    Else its budgets go on.
    """
    from eccos_core.labelling import BackgroundLabeller, JudgeSettings, ShadowSettings

    judge, shadow, broken_json = config.labels.judge, config.shadow, config.labels.signals.get("invalid_json")
    if judge is None and reward is None and shadow is None and broken_json is None:
        return None
    old = before[1] if before is not None and isinstance(before[1], BackgroundLabeller) else None
    if old is not None and before is not None and _asks(before[0]) == _asks(config):
        made_of = (old.reward is reward, old.backend is backend, old.workload is workload, old.log is log)
        if all(made_of):
            return old
    old_judge, old_shadow = (old.judge, old.shadow) if old is not None else (None, None)
    return BackgroundLabeller(
        config.models,
        backend,
        workload,
        judge=JudgeSettings(
            judge.model,
            judge.share,
            daily_budget(config, "judge", judge.budget_usd_per_day, old_judge.budget if old_judge else None, log),
            judge.pairs,
            judge.calibrate,
        )
        if judge
        else None,
        shadow=ShadowSettings(
            shadow.models,
            shadow.share,
            daily_budget(config, "shadow", shadow.budget_usd_per_day, old_shadow.budget if old_shadow else None, log),
        )
        if shadow
        else None,
        reward=reward,
        broken_json=broken_json,
        view=config.conversation,
        log=log,
    )


def daily_budget(
    config: Config,
    purpose: str,
    usd: float,
    before: DailyBudget | None = None,
    log: BaseDecisionLog | None = None,
    *,
    waits: bool = True,
) -> DailyBudget:
    """Build a budget for each day. What was spent is kept in a `log` that replicas share, or else in a file beside it.

    `before`: that of the version in use. It goes on, with another limit, where it is kept in the same place. Where
    whoever spends must not wait for a database (`waits=False`), replicas exchange what they spend once a second.
    """
    kept = _spending_of(config, log)
    if before is not None and _place(before.kept) == _place(kept):
        before.usd = usd
        return before
    if isinstance(kept, PostgresSpending) and not waits:
        kept = ExchangedSpending(kept)
    return DailyBudget(purpose, usd, kept)


def _spending_of(config: Config, log: BaseDecisionLog | None) -> DailySpending | None:
    if isinstance(log, PostgresDecisionLog):
        return PostgresSpending(log.pool)
    path = config.decision_log.path
    return None if path is None else SqliteSpending(path.with_name(FILE_NAME))


def _place(kept: DailySpending | None) -> str | None:
    return None if kept is None else kept.place


def _asks(config: Config) -> tuple[object, ...]:
    """Return all that what labels answers takes from a configuration."""
    return config.models, config.labels, config.shadow, config.conversation, config.decision_log


def _stamp(folder: Path) -> _Stamp:
    """Return what tells whether the files of a folder have changed."""
    if not folder.is_dir():
        return ()
    found = [(each.name, each.stat()) for each in sorted(folder.iterdir())]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)
