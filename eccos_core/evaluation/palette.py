"""Colours for routers, the same in every chart. Colour-blind readers can tell them apart (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Mapping

from eccos_core.evaluation.report import RouterResult

INK = "#1f2933"
FAINT = "#d9dee4"
REFERENCE = "#8a94a0"
ORACLE = "#e6b000"
ECCOS_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")
BASELINE_COLOURS = (
    *("#56b4e9", "#e69f00", "#7f6bb3", "#a6761d", "#66a61e", "#b2474d"),
    *("#4d4d4d", "#1b7f79", "#c2185b", "#bcbd22", "#5c7cfa", "#a1887f"),
)


def assign_colours(results: Mapping[str, RouterResult]) -> dict[str, str]:
    """Give every router with a frontier a colour. The routers of eccos get the strong ones, `hybrid` the first."""
    own = sorted((name for name, result in results.items() if result.role == "eccos"), key=lambda n: n != "hybrid")
    others = [name for name, result in results.items() if result.role == "baseline" and name != "prior"]
    chosen = {name: ECCOS_COLOURS[position % len(ECCOS_COLOURS)] for position, name in enumerate(own)}
    chosen.update({name: BASELINE_COLOURS[position % len(BASELINE_COLOURS)] for position, name in enumerate(others)})
    chosen.update({name: REFERENCE for name in ("random_mix", "prior", "oracle") if name in results})
    return chosen
