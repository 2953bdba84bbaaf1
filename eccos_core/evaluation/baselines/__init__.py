"""Every contender by the name it has on the command line and in the report."""

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
ALWAYS = ("oracle", "random_mix")  # cost nothing, and every report has them


def routers_named(names: Sequence[str]) -> tuple[ReplayRouter, ...]:
    """The contenders of these names, each once, in this order; `oracle` and `random_mix` are always there.

    Raises `InputError` for a name that nobody has, with the nearest one.
    """
    known = {replay_router.name: replay_router for replay_router in (*DEFAULT_ROUTERS, *BASELINES)}
    chosen: dict[str, ReplayRouter] = {}
    for name in names:
        if name in ALWAYS:
            continue
        if name not in known:
            listed = ", ".join([*ALWAYS, *known])
            raise InputError(f"unknown router {name!r}{did_you_mean(name, known)} Known are: {listed}")
        chosen[name] = known[name]
    return tuple(chosen.values())
