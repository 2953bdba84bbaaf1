"""One colour per router, the same in every picture; chosen to be told apart by colour-blind readers (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Mapping

from eccos_core.evaluation.report import RouterResult

INK = "#1f2933"
FAINT = "#d9dee4"
REFERENCE = "#8a94a0"
OWN = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
OTHERS = ("#56b4e9", "#e69f00", "#7f6bb3", "#a6761d", "#66a61e", "#b2474d", "#4d4d4d")


def colours(results: Mapping[str, RouterResult]) -> dict[str, str]:
    """A colour for every router that has a frontier; eccos' own get the strong ones, hybrid the first of them."""
    own = sorted((name for name, result in results.items() if result.role == "eccos"), key=lambda n: n != "hybrid")
    others = [name for name, result in results.items() if result.role == "baseline" and name != "prior"]
    chosen = {name: OWN[position % len(OWN)] for position, name in enumerate(own)}
    chosen.update({name: OTHERS[position % len(OTHERS)] for position, name in enumerate(others)})
    chosen.update({name: REFERENCE for name in ("random_mix", "prior", "oracle") if name in results})
    return chosen
