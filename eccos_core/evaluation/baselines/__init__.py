"""Every router of an evaluation, by its name on the command line and in the report."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.errors import InputError, did_you_mean
from eccos_core.evaluation.baselines.neighbours import AiosBaseline, AvengersProBaseline, KnnBaseline, PortBaseline
from eccos_core.evaluation.baselines.trained import LinearBaseline, MlpBaseline, RouteLlmBaseline
from eccos_core.evaluation.eccos_routers import HYBRID, HYBRID_STATIC, RETRIEVAL, TRAINED
from eccos_core.evaluation.protocol import PriorReplayRouter, ReplayRouter

DEFAULT_ROUTERS: tuple[ReplayRouter, ...] = (PriorReplayRouter(), RETRIEVAL, TRAINED, HYBRID, HYBRID_STATIC)
BASELINES: tuple[ReplayRouter, ...] = (
    AiosBaseline(),
    RouteLlmBaseline(),
    AvengersProBaseline(),
    LinearBaseline(),
    KnnBaseline(),
    MlpBaseline(),
    PortBaseline(),
)
REFERENCE_ROUTERS = ("oracle", "random_mix")  # computed from the outcomes, in every report


def routers_by_name(names: Sequence[str]) -> tuple[ReplayRouter, ...]:
    """Return the routers of these names, each once, in this order. Skips `oracle` and `random_mix`, always reported.

    Raises `InputError` for an unknown name and suggests the nearest one.
    """
    known = {replay_router.name: replay_router for replay_router in (*DEFAULT_ROUTERS, *BASELINES)}
    chosen: dict[str, ReplayRouter] = {}
    for name in names:
        if name in REFERENCE_ROUTERS:
            continue
        if name not in known:
            listed = ", ".join([*REFERENCE_ROUTERS, *known])
            raise InputError(f"unknown router {name!r}{did_you_mean(name, known) or '.'} Known: {listed}.")
        chosen[name] = known[name]
    return tuple(chosen.values())
