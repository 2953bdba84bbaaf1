"""Read the decision log as bandit feedback: what was chosen of what, with what probability, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.decision_log import BaseDecisionLog, LoggedDecision
from eccos_core.domain import FloatArray
from eccos_core.errors import DataError
from eccos_core.off_policy import BanditFeedback


@dataclass(frozen=True, slots=True, eq=False)
class LoggedTraffic:
    """The answered decisions of a log, R of them, the oldest first.

    `unanswered` counts decisions without an answer: nobody was called, or every call failed. They are left out. A
    decision stands for what came of it, also where a fallback answered in the end. `judge_usd` and `shadow_usd` (R,):
    what was paid to label each answer.
    """

    path: str
    entries: tuple[LoggedDecision, ...]
    unanswered: int
    judge_usd: FloatArray
    shadow_usd: FloatArray

    def of_single_calls(self) -> LoggedTraffic:
        """Leave out the requests that several models were asked for, as no single choice stands for them.

        Raises `DataError` if none is left.
        """
        single = tuple(entry for entry in self.entries if len(entry.calls) < 2)
        if not single:
            said = f"each of its {len(self.entries):,} requests was answered by a plan of several calls"
            raise DataError(self.path, f"{said}. Give a --since from before eccos.policy.escalate.")
        return replace(self, entries=single)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that was forecast or chosen, in the order of the log."""
        names = {name: None for entry in self.entries for name in (*entry.forecast, entry.decided_model)}
        return tuple(names)

    @property
    def paid_usd(self) -> FloatArray:
        """(R,) what each answer cost."""
        return np.array([entry.paid_usd or 0.0 for entry in self.entries])

    @property
    def labels(self) -> FloatArray:
        """(R,) the label of each answer in [0, 1], NaN without one."""
        return np.array([np.nan if entry.label is None else entry.label for entry in self.entries])

    def feedback(self, models: Sequence[str], forecast: tuple[FloatArray, FloatArray] | None = None) -> BanditFeedback:
        """Return the traffic as bandit feedback over these models, which hold all models of the log.

        Where the log has no forecast, because a model was not in the pool at that time, `forecast` says what to take:
        quality and cost in USD, both (R, M). Without it, the model's mean forecast is taken.
        """
        index = {name: column for column, name in enumerate(models)}
        logged = np.full((2, len(self.entries), len(models)), np.nan)
        for row, entry in enumerate(self.entries):
            for name, both in entry.forecast.items():
                logged[:, row, index[name]] = both
        action = np.array([index[entry.decided_model] for entry in self.entries])
        offered = ~np.isnan(logged).any(axis=0)
        filled = [
            np.where(offered, own, _column_means(own) if forecast is None else forecast[which])
            for which, own in enumerate(logged)
        ]
        return BanditFeedback(
            models=tuple(models),
            action=action,
            propensity=np.array([entry.propensity for entry in self.entries]),
            offered=offered,
            quality=self.labels,
            cost_usd=self.paid_usd,
            forecast_quality=filled[0],
            forecast_cost_usd=filled[1],
        )


def read_traffic(log: BaseDecisionLog, pool: Sequence[str], since: float | None = None) -> LoggedTraffic:
    """Read the traffic since a time (s since 1970, UTC), or all of it.

    A log of an older version has no propensities. Its decisions are taken as certain. Raises `DataError` for a log
    without answers, and for the log of a pool that has no model in common with `pool`.
    """
    found = log.entries(since=since, last=sys.maxsize)[::-1]
    answered = tuple(entry for entry in found if entry.model is not None)
    path = log.place
    if not answered:
        when = "" if since is None else " since that time. Give an earlier --since"
        asked = f"none of its {len(found)} decisions was answered" if found else "it holds no decision"
        raise DataError(path, f"{asked}{when}. Answer requests with `router.complete` or `eccos ask` first.")
    row_of = {entry.id: row for row, entry in enumerate(answered)}
    paid = {"judge": np.zeros(len(answered)), "shadow": np.zeros(len(answered))}
    for decision_id, call, usd in log.spending(since):
        if decision_id in row_of:
            paid[call][row_of[decision_id]] += usd
    traffic = LoggedTraffic(path, answered, len(found) - len(answered), paid["judge"], paid["shadow"])
    if not set(traffic.models) & set(pool):
        raise DataError(
            path,
            f"this is the log of another pool. Its decisions are about {', '.join(traffic.models)}, and your pool has "
            f"{', '.join(pool)}. Give the configuration whose eccos.decision_log this is.",
        )
    return traffic


def _column_means(values: FloatArray) -> FloatArray:
    """(M,) the mean of what is known of each column. 0 where nothing is known, as no forecast was ever made."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
