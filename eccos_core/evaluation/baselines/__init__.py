"""Every router of an evaluation, by its name on the command line and in the report."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.domain import OutcomeTable
from eccos_core.errors import InputError, did_you_mean
from eccos_core.evaluation.baselines.avengers_pro import AvengersProBaseline
from eccos_core.evaluation.baselines.cascades import (
    AgreementOfTwoBaseline,
    AutoMixBaseline,
    BestSingleBaseline,
    FrugalGptBaseline,
)
from eccos_core.evaluation.baselines.complexity import ComplexityBaseline
from eccos_core.evaluation.baselines.irt import IrtBaseline
from eccos_core.evaluation.baselines.neighbours import AiosBaseline, KnnBaseline
from eccos_core.evaluation.baselines.pareto_bandit import ParetoBanditBaseline
from eccos_core.evaluation.baselines.port import PortBaseline
from eccos_core.evaluation.baselines.regression import LinearBaseline, LogisticBaseline, MlpBaseline
from eccos_core.evaluation.baselines.routellm import RouteLlmBaseline
from eccos_core.evaluation.eccos_routers import HYBRID, HYBRID_STATIC, RETRIEVAL, TRAINED
from eccos_core.evaluation.plan_routers import ESCALATE
from eccos_core.evaluation.protocol import PriorReplayRouter, ReplayRouter
from eccos_core.io.optional import require_package

DEFAULT_ROUTERS: tuple[ReplayRouter, ...] = (PriorReplayRouter(), RETRIEVAL, TRAINED, HYBRID, HYBRID_STATIC)
BASELINES: tuple[ReplayRouter, ...] = (
    AiosBaseline(),
    RouteLlmBaseline(),
    AvengersProBaseline(),
    LinearBaseline(),
    LogisticBaseline(),
    IrtBaseline(),
    KnnBaseline(),
    MlpBaseline(),
    PortBaseline(),
    ComplexityBaseline(),
)
# they look at answers, so they are for outcomes with answers or features
PLAN_ROUTERS: tuple[ReplayRouter, ...] = (ESCALATE,)
PLAN_BASELINES: tuple[ReplayRouter, ...] = (
    FrugalGptBaseline(),
    AutoMixBaseline(),
    AgreementOfTwoBaseline(),
    BestSingleBaseline(),
)
BENCHMARK_BASELINES: tuple[ReplayRouter, ...] = (ParetoBanditBaseline(),)  # by name only: they need another extra
REFERENCE_ROUTERS = ("oracle", "random_mix")  # computed from the outcomes, in every report


def routers_by_name(names: Sequence[str]) -> tuple[ReplayRouter, ...]:
    """Return the routers of these names, each once, in this order. Skips `oracle` and `random_mix`, always reported.

    Raises `InputError` for an unknown name and suggests the nearest one, and `MissingDependencyError` for a baseline
    whose package is not installed.
    """
    known = {
        replay_router.name: replay_router
        for replay_router in (*DEFAULT_ROUTERS, *BASELINES, *PLAN_ROUTERS, *PLAN_BASELINES, *BENCHMARK_BASELINES)
    }
    chosen: dict[str, ReplayRouter] = {}
    for name in names:
        if name in REFERENCE_ROUTERS:
            continue
        if name not in known:
            listed = ", ".join([*REFERENCE_ROUTERS, *known])
            raise InputError(f"unknown router {name!r}{did_you_mean(name, known) or '.'} Known: {listed}.")
        if known[name] in BENCHMARK_BASELINES:
            require_package(name, "benchmark", f"the baseline {name}")
        chosen[name] = known[name]
    return tuple(chosen.values())


def usual_routers(table: OutcomeTable, named: Sequence[str] = (), *, baselines: bool = False) -> list[str]:
    """Return the names of the routers to compare on these outcomes: those `named`, else the usual ones.

    Outcomes with answers or features add routers that look at answers. baselines: add those of the literature.
    """
    tells = table.answers is not None or bool(table.features)
    names = list(named) or [router.name for router in (*DEFAULT_ROUTERS, *(PLAN_ROUTERS if tells else ()))]
    return [*names, *[router.name for router in (*BASELINES, *(PLAN_BASELINES if tells else ())) if baselines]]
