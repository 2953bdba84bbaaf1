"""The data of the dashboard: how the router is doing, sums of the decision log, and single decisions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from eccos_core.decision_log import BaseDecisionLog, LogFigures
from eccos_core.errors import did_you_mean
from eccos_core.server.errors import ApiError
from eccos_core.server.serving import Serving
from eccos_core.server.ui.answer_cache import AnswerCache
from eccos_core.server.ui.describe_decision import describe_decision
from eccos_core.server.ui.describe_figures import describe_figures
from eccos_core.server.ui.describe_savings import describe_savings, estimate_quality
from eccos_core.server.ui.describe_status import describe_status
from eccos_core.server.ui.period import period_until, read_period
from eccos_core.server.ui.viewer import Viewer

Asked: TypeAlias = Mapping[str, str]
DataReader: TypeAlias = Callable[[Viewer, Asked], Awaitable[dict[str, Any] | None]]
FIGURES_KEPT_S, SAVINGS_KEPT_S = 5.0, 60.0
MOST_LISTED = 200
NO_LOG = {"log": False}


class DashboardData:
    """Reads what the dashboard shows. Everything that touches the disk runs in threads."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._figures: AnswerCache[dict[str, Any]] = AnswerCache(FIGURES_KEPT_S)
        self._savings: AnswerCache[dict[str, Any]] = AnswerCache(SAVINGS_KEPT_S)

    @property
    def _log(self) -> BaseDecisionLog | None:
        return self._serving.router.decision_store.log

    async def status(self, viewer: Viewer, _: Asked) -> dict[str, Any]:
        """Return models, queue, circuits, budgets, and who is looking."""
        return await describe_status(self._serving, viewer)

    async def figures(self, viewer: Viewer, asked: Asked) -> dict[str, Any]:
        """Return sums over a period: in all, per time step, per model, and the calibration."""
        name, log = read_period(asked), self._log
        if log is None:
            return NO_LOG

        def compute() -> dict[str, Any]:
            log.flush(1.0)
            figures, now = LogFigures(log.reader), time.time()
            seen = viewer.filter(0.0, now + 1)
            period = period_until(name, now + 1, figures.first_at(seen) if name == "all" else None)
            return describe_figures(figures, viewer.filter(period.since, period.until), period)

        return await self._figures.get((name, _scope(viewer)), compute)

    async def savings(self, viewer: Viewer, asked: Asked) -> dict[str, Any]:
        """Return what one model would have cost, per time step, and what labels say about its quality."""
        name, log, router = read_period(asked), self._log, self._serving.router
        if log is None:
            return NO_LOG
        pool = tuple(model.name for model in router.models)
        baseline = asked.get("baseline") or None
        if baseline is not None and baseline not in pool:
            hint = did_you_mean(baseline, pool) or "."
            raise ApiError("invalid_request", f"baseline {baseline!r} is no model of the pool{hint}", param="baseline")

        def compute() -> dict[str, Any]:
            log.flush(1.0)
            figures, now = LogFigures(log.reader), time.time()
            seen = viewer.filter(0.0, now + 1)
            period = period_until(name, now + 1, figures.first_at(seen) if name == "all" else None)
            chosen = viewer.filter(period.since, period.until)
            found = describe_savings(figures, chosen, period, pool, baseline)
            if viewer.is_admin and found["baseline"] is not None:
                found["quality"] = estimate_quality(router, figures, chosen, found["baseline"])
            return found

        return await self._savings.get((name, _scope(viewer), baseline), compute)

    async def decisions(self, viewer: Viewer, asked: Asked) -> dict[str, Any]:
        """Return the newest decisions, of one model where `model` is given, made before the time `before`."""
        log = self._log
        if log is None:
            return NO_LOG
        last = int(_number(asked, "last", 50.0, 1, MOST_LISTED))
        before = _number(asked, "before", 1e12, 0, 1e12)
        model = asked.get("model") or None

        def read() -> dict[str, Any]:
            log.flush(1.0)
            rows = LogFigures(log.reader).newest(viewer.filter(0.0, before), model=model, last=last)
            return {"log": True, "decisions": rows}

        return await asyncio.to_thread(read)

    async def decision(self, viewer: Viewer, asked: Asked) -> dict[str, Any] | None:
        """Return all about one decision, or None for one that is not in the log or not for this viewer."""
        log = self._log
        if log is None:
            return None

        def read() -> dict[str, Any] | None:
            log.flush(1.0)
            found = log.get(asked["decision_id"])
            if found is None or not (viewer.is_admin or found.tenant == viewer.caller.tenant):
                return None
            return describe_decision(found, viewer, keeps_prompts=log.log_prompts)

        return await asyncio.to_thread(read)


def _scope(viewer: Viewer) -> tuple[bool, str | None]:
    return (True, None) if viewer.is_admin else (False, viewer.caller.tenant)


def _number(asked: Asked, name: str, otherwise: float, least: float, most: float) -> float:
    text = asked.get(name)
    if text is None or text == "":
        return otherwise
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ApiError("invalid_request", f"{name} must be a number from {least:g} to {most:g}", param=name)
    return value
