"""The chat model of an agent's step: `ChatEccos` for those models that may take it.

A run's budget leaves out what it cannot pay any more. Models that failed at a step are left out when it is tried again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np

from eccos_core.domain import Decision, Request
from eccos_core.errors import InfeasibleError
from eccos_integrations.langchain.batch_plan import PlannedCall
from eccos_integrations.langchain.chat_model import ChatEccos

WhenSpent: TypeAlias = Literal["error", "cheapest"]


class RunBudgetSpentError(InfeasibleError):
    """No model may answer the next step within what is left of the run's budget."""


class AgentChat(ChatEccos):
    """`ChatEccos` for one step of an agent. Only models that the run can still pay may answer, fallbacks included."""

    usd_left: float | None = None
    """What is left of the run's budget in USD. None: the run has none."""
    when_spent: WhenSpent = "error"
    """What happens when every model costs more: an error, or the cheapest answers."""
    better_than: frozenset[str] = frozenset()
    """Models that failed at this step. Only models with a better forecast answer, or else the best of them."""

    def _decide(self, prepared: PlannedCall | Request, given: dict[str, Any]) -> tuple[Request, Decision | None]:
        if isinstance(prepared, Request) and self.better_than:
            prepared = self._keep_better(prepared)
        if isinstance(prepared, Request) and self.usd_left is not None:
            prepared = self._keep_affordable(prepared, self.usd_left)
        return super()._decide(prepared, given)

    async def _adecide(self, prepared: PlannedCall | Request, given: dict[str, Any]) -> tuple[Request, Decision | None]:
        if self.usd_left is None and not self.better_than:
            return await super()._adecide(prepared, given)
        return await asyncio.to_thread(self._decide, prepared, given)

    def _keep_better(self, request: Request) -> Request:
        """Return the request for the models whose forecast is better than that of every model that failed."""
        router = self.router
        prepared = router.decider.prepare([router.parts.tenants.narrow(request)])
        able = np.flatnonzero(prepared.good[0])
        failed = np.isin([router.models[column].name for column in able], list(self.better_than))
        if not failed.any():
            return request
        quality = prepared.quality[0, able]
        better = quality > quality[failed].max()
        chosen = able[better] if better.any() else able[[int(np.argmax(quality))]]
        return replace(request, allow=frozenset(router.models[column].name for column in chosen))

    def _keep_affordable(self, request: Request, usd_left: float) -> Request:
        """Return the request for the models whose predicted cost is within what is left."""
        router = self.router
        prepared = router.decider.prepare([router.parts.tenants.narrow(request)])
        able, cost = prepared.good[0], prepared.planned_usd[0]
        affordable = able & (cost <= usd_left) & (usd_left > 0)
        if not able.any() or affordable[able].all():
            return request  # with no able model, the router says why
        if affordable.any():
            chosen = np.flatnonzero(affordable)
        else:
            cheapest = int(np.flatnonzero(able)[np.argmin(cost[able])])
            if self.when_spent == "error":
                raise RunBudgetSpentError(
                    "budget_usd",
                    usd_left,
                    float(cost[cheapest]),
                    f"the run has {max(usd_left, 0.0):.6f} USD left, and its next step costs at least "
                    f"{cost[cheapest]:.6f} USD, with {router.models[cheapest].name!r}. Give "
                    "EccosMiddleware a larger budget_usd, or let the cheapest model finish: when_spent='cheapest'.",
                )
            chosen = np.array([cheapest])
        return replace(request, allow=frozenset(router.models[column].name for column in chosen))
