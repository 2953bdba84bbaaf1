"""Every contender by the name it has on the command line and in the report."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.errors import InputError, did_you_mean
from eccos_core.evaluation.baselines.neighbours import Aios, AvengersPro, NearestNeighbours, Port
from eccos_core.evaluation.baselines.trained import Linear, Mlp, RouteLlm
from eccos_core.evaluation.eccos_routers import HYBRID, HYBRID_STATIC, RETRIEVAL, TRAINED
from eccos_core.evaluation.protocol import Contender, Prior

DEFAULT_ROUTERS: tuple[Contender, ...] = (Prior(), RETRIEVAL, TRAINED, HYBRID, HYBRID_STATIC)
BASELINES: tuple[Contender, ...] = (Aios(), RouteLlm(), AvengersPro(), Linear(), NearestNeighbours(), Mlp(), Port())
ALWAYS = ("oracle", "random_mix")  # cost nothing, and every report has them


def contenders_named(names: Sequence[str]) -> tuple[Contender, ...]:
    """The contenders of these names, each once, in this order; `oracle` and `random_mix` are always there.

    Raises `InputError` for a name that nobody has, with the nearest one.
    """
    known = {contender.name: contender for contender in (*DEFAULT_ROUTERS, *BASELINES)}
    chosen: dict[str, Contender] = {}
    for name in names:
        if name in ALWAYS:
            continue
        if name not in known:
            listed = ", ".join([*ALWAYS, *known])
            raise InputError(f"unknown router {name!r}{did_you_mean(name, known)} Known are: {listed}")
        chosen[name] = known[name]
    return tuple(chosen.values())
