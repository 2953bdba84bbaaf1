"""A router over scripted models, whose answers a judge grades and a second model answers as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from eccos_core.decision_log import DecisionLog
from eccos_core.domain import Model
from eccos_core.grading.reward import RewardModel
from eccos_core.history import MemoryHistory
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.labelling import BackgroundLabeller, JudgeSettings, ShadowSettings
from eccos_core.router import Router
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.testing import ScriptedBackend, scripted_router

POOL = tuple(Model(name, 1e-6, 1e-6, max_concurrency=4) for name in ("small", "large", "judge"))


def build(
    tmp_path: Path,
    verdicts: list[Any],
    *,
    judge_usd: float | None = 1.0,
    shadow_usd: float | None = None,
    reward: RewardModel | None = None,
    pairs: bool = False,
    calibrate: bool = True,
) -> tuple[Router, BackgroundLabeller, ScriptedBackend]:
    """A router whose answers are all judged and all shadowed, each where there is money for it."""
    backend = ScriptedBackend({"small": ["small says so"], "large": ["large says so"], "judge": verdicts}, POOL)
    router = scripted_router(backend, POOL, {"": [0.9, 0.8, 0.1]}, usd_per_quality=1.0)
    encoder = router.decider.encoder
    history = MemoryHistory(encoder.name, encoder.dimensions)
    store = DecisionStore(history, DecisionLog(tmp_path / "log.sqlite"))
    labeller = BackgroundLabeller(
        POOL,
        backend,
        router.workload,
        judge=None
        if judge_usd is None
        else JudgeSettings("judge", 1.0, DailyBudget("judge", judge_usd), pairs, calibrate),
        reward=reward,
        shadow=ShadowSettings(("large",), 1.0, DailyBudget("shadow", shadow_usd)) if shadow_usd is not None else None,
        broken_json=0.0,
        log=store.log,
        seed=0,
    )
    parts = router.parts
    parts = replace(parts, decision_store=store, answer_observer=labeller, signals={"copied": 0.9, "regenerated": 0.2})
    return Router.from_parts(parts), labeller, backend


def read(router: Router) -> DecisionLog:
    """The decision log of a router, with all that was written so far."""
    log = router.decision_store.log
    assert log is not None
    log.flush()
    return log


def label_of(router: Router, decision_id: str) -> tuple[float | None, str | None]:
    log = read(router)
    found = log.get(decision_id)
    assert found is not None
    return found.label, found.label_source


def answer(router: Router, question: str = "What is it?", **parameters: Any) -> str:
    decision = router.complete(question, **parameters).decision
    assert decision is not None
    return decision.id
