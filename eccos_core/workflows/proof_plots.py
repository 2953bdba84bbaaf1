"""Draw what routing saved, and what another policy would have done, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eccos_core.evaluation.figures import new_figure, save_figure, set_title, style_frame
from eccos_core.evaluation.palette import ECCOS_COLOURS, FAINT, INK, REFERENCE
from eccos_core.off_policy import IntervalEstimate
from eccos_core.routing.savings import SavingsReport
from eccos_core.workflows.replay import ReplayReport

_ROUTED, _LABELLING = ECCOS_COLOURS[:2]


def draw_savings(report: SavingsReport, path: Path) -> None:
    """Draw cost over requests beside quality, routed and of the baseline. What labelling cost is added on top.

    The suffix of `path` says the format (.png, .svg, .pdf).
    """
    figure = new_figure(9.2, 4.4)
    cost, quality = figure.subplots(1, 2, width_ratios=(3, 2))
    requests, paid, total, other = zip(*report.curve, strict=True)
    baseline = report.estimated.baseline
    cost.plot(requests, other, color=REFERENCE, linestyle="--", linewidth=2.0, label=f"{baseline} (estimated)")
    cost.plot(requests, paid, color=_ROUTED, linewidth=2.6, label="routed (paid)")
    if report.measured.labelling_usd > 0:
        cost.plot(requests, total, color=_LABELLING, linewidth=1.8, label="with judge and shadow answers (paid)")
    cost.fill_between(requests, total, other, color=FAINT, alpha=0.6)
    cost.set_xlabel("requests", color=INK)
    cost.set_ylabel("USD", color=INK)
    cost.legend(frameon=False, loc="upper left")
    _style(cost, "Cost")
    points = [
        ("labelled answers\n(measured)", report.measured.mean_label, _ROUTED),
        ("all answers\n(estimated)", report.estimated.quality, _ROUTED),
        (f"{baseline}\n(estimated)", report.estimated.baseline_quality, REFERENCE),
    ]
    known = [(name, estimate, colour) for name, estimate, colour in points if estimate is not None]
    if known:
        _draw_intervals(quality, known)
    else:
        quality.text(0.5, 0.5, "no label:\nquality is only forecast", ha="center", transform=quality.transAxes)
        quality.set_xticks([])
    _style(quality, "Quality")
    save_figure(figure, path)


def draw_replay(report: ReplayReport, path: Path) -> None:
    """Draw quality over cost of the log and of the new policy, with their intervals. The suffix says the format."""
    figure = new_figure(9.2, 4.4)
    axes = figure.subplots()
    value = report.value
    known_cost = IntervalEstimate(value.logged_cost_usd, value.logged_cost_usd, value.logged_cost_usd)
    for name, cost, quality, colour in (
        ("logged", known_cost, value.logged_quality, REFERENCE),
        ("new policy", value.cost_usd, value.quality, _ROUTED),
    ):
        axes.errorbar(
            [1000 * cost.value],
            [quality.value],
            xerr=[[1000 * (cost.value - cost.low)], [1000 * (cost.high - cost.value)]],
            yerr=[[quality.value - quality.low], [quality.high - quality.value]],
            fmt="o",
            markersize=9,
            capsize=5,
            color=colour,
            label=name,
        )
    axes.set_xlabel("USD per 1,000 requests", color=INK)
    axes.set_ylabel("quality", color=INK)
    axes.legend(frameon=False)
    _style(axes, f"{report.requests:,} logged requests, {report.confidence:.0%} intervals")
    save_figure(figure, path)


def _draw_intervals(axes: Any, points: Sequence[tuple[str, IntervalEstimate, str]]) -> None:
    for place, (_, estimate, colour) in enumerate(points):
        below, above = estimate.value - estimate.low, estimate.high - estimate.value
        axes.errorbar(
            [place], [estimate.value], yerr=[[below], [above]], fmt="o", markersize=8, capsize=5, color=colour
        )
    axes.set_xticks(range(len(points)), [name for name, _, _ in points], fontsize=8)
    axes.set_xlim(-0.6, len(points) - 0.4)


def _style(axes: Any, title: str) -> None:
    set_title(axes, title)
    style_frame(axes)
