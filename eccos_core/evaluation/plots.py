"""Draw accuracy over cost with matplotlib: every single model, their random mix, the oracle, and routers' frontiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.evaluation.charts import densify, prefers_log_axis
from eccos_core.evaluation.figures import new_figure, save_figure, set_title, style_frame
from eccos_core.evaluation.kept_promises import KeptPromises
from eccos_core.evaluation.metrics import Frontier
from eccos_core.evaluation.palette import ECCOS_COLOURS, INK, ORACLE, REFERENCE
from eccos_core.evaluation.plot_labels import PlotPoint, place_labels
from eccos_core.evaluation.report import EvaluationReport
from eccos_core.io.optional import needs_extra

Line = Sequence[tuple[float, float]]  # (USD per 1,000 questions, accuracy), from cheap to expensive
_POINTS_PER_LINE = 300


def draw_frontier(
    path: str | Path,
    *,
    title: str,
    singles: Sequence[PlotPoint],
    frontiers: Mapping[str, Line],
    random_mix: Line,
    oracle: PlotPoint | None = None,
    chosen: PlotPoint | None = None,
    promises: Mapping[str, KeptPromises] | None = None,
) -> Path:
    """Write the picture as PNG, or as the suffix says (.svg, .pdf), and return its path.

    singles: dots with labels. frontiers: lines by name, the first one drawn strongest. random_mix: the convex hull of
    the single models, dashed. oracle: a star. chosen: a ring at the operating point that was really run. promises: by
    name, drawn beside the frontier as realised over asked accuracy. The cost axis is logarithmic where costs span more
    than a factor of 6. Raises `InputError` for a suffix that is not known.
    """
    path = Path(path)
    check_picture(path)
    figure = new_figure(12.4 if promises else 8.4, 5.2, dpi=160)
    axes, *beside = figure.subplots(1, 2, width_ratios=(2, 1)) if promises else [figure.subplots()]
    if promises:
        _draw_promises(beside[0], promises)
    _set_up_axes(axes, title, singles, frontiers, random_mix)
    lines = {"random mix of single models": random_mix, **frontiers}
    for position, (name, line) in enumerate(lines.items()):
        style: dict[str, Any] = {"linestyle": "--", "color": REFERENCE, "linewidth": 1.4}
        if position:
            colour = ECCOS_COLOURS[(position - 1) % len(ECCOS_COLOURS)]
            style = {"color": colour, "linewidth": 2.8 - 0.4 * min(position, 3)}
        axes.plot(*_curve(line), label=name, zorder=3 - 0.1 * position, **style)
    axes.scatter(
        [point.usd_per_1k for point in singles], [point.accuracy for point in singles], s=34, color=INK, zorder=6
    )
    labelled = list(singles)
    if oracle is not None:
        axes.scatter([oracle.usd_per_1k], [oracle.accuracy], marker="*", s=190, color=ORACLE, zorder=7)
        labelled.append(replace(oracle, radius=8.0))
    if chosen is not None:
        ring: dict[str, Any] = {"facecolor": "white", "edgecolor": ECCOS_COLOURS[0], "linewidth": 2.6, "zorder": 8}
        axes.scatter([chosen.usd_per_1k], [chosen.accuracy], s=150, **ring)
        labelled.append(chosen := replace(chosen, radius=7.0))
    columns = min(3, len(lines))
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.995), ncols=columns, frameon=False, fontsize=9, borderaxespad=0
    )
    place_labels(axes, labelled, chosen, [_curve(line) for line in lines.values()])
    save_figure(figure, path)
    return path


def check_picture(path: str | Path) -> None:
    """Raise `InputError` unless matplotlib can write a picture with this suffix. Without one it is PNG."""
    with needs_extra("report", "a picture"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

    kind, known = Path(path).suffix.lstrip(".").lower() or "png", FigureCanvasAgg.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"a picture cannot be a .{kind} file. It can be: {', '.join(sorted(known))}.")


def draw_report(report: EvaluationReport, path: str | Path, routers: Sequence[str] = ()) -> Path:
    """Draw an evaluation report with the frontiers of these routers, by default the best one of eccos."""
    if not routers:
        ranked = sorted(report.results.values(), key=lambda each: (each.role != "eccos", -(each.score.area or 0.0)))
        routers = [each.name for each in ranked if each.role in ("eccos", "baseline")][:1]
    singles = [
        PlotPoint(result.name, *_per_thousand(result.score.frontier)[0])
        for result in report.results.values()
        if result.role == "single"
    ]
    best = _per_thousand(report.results["oracle"].score.frontier)[-1]
    return draw_frontier(
        path,
        title=f"{report.dataset}: {report.test:,} test questions",
        singles=singles,
        frontiers={name: _per_thousand(report.results[name].score.frontier) for name in routers},
        random_mix=_per_thousand(report.results["random_mix"].score.frontier),
        oracle=PlotPoint("oracle", *best),
        promises={
            name: kept for name in routers if (kept := report.results[name].promises) is not None and len(kept.asked)
        },
    )


def _draw_promises(axes: Any, promises: Mapping[str, KeptPromises]) -> None:
    """Draw realised over asked accuracy, and the diagonal on which a floor is kept exactly."""
    with needs_extra("report", "a picture"):
        from matplotlib.ticker import PercentFormatter

    ends = [edge for kept in promises.values() for edge in (kept.asked[0], kept.asked[-1])]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], linestyle="--", color=REFERENCE, linewidth=1.4)
    for position, (name, kept) in enumerate(promises.items()):
        colour = ECCOS_COLOURS[position % len(ECCOS_COLOURS)]
        axes.plot(kept.asked, kept.realised, marker="o", markersize=4, color=colour, linewidth=1.8, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("floor that was asked for", color=INK)
    axes.set_ylabel("realised", color=INK)
    set_title(axes, "kept promises", pad=24)
    style_frame(axes)


def _per_thousand(frontier: Frontier) -> list[tuple[float, float]]:
    """Return a frontier as (USD per 1,000 questions, accuracy)."""
    return [(1000 * cost, gain) for cost, gain in zip(frontier.cost_usd, frontier.accuracy, strict=True)]


def _curve(line: Line) -> tuple[FloatArray, FloatArray]:
    """Return (costs, accuracies) of a line with many points."""
    return densify([cost for cost, _ in line], [accuracy for _, accuracy in line], _POINTS_PER_LINE)


def _set_up_axes(
    axes: Any, title: str, singles: Sequence[PlotPoint], frontiers: Mapping[str, Line], random_mix: Line
) -> None:
    """Set scales, titles and the grid."""
    with needs_extra("report", "a picture"):
        from matplotlib.ticker import FuncFormatter, PercentFormatter

    costs = [point.usd_per_1k for point in singles] + [
        cost for line in (random_mix, *frontiers.values()) for cost, _ in line
    ]
    logarithmic = prefers_log_axis(costs)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 1.6, max(costs) * 2.2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("USD per 1,000 questions" + (" (logarithmic)" if logarithmic else ""), color=INK)
    axes.set_ylabel("answered well", color=INK)
    set_title(axes, title, pad=24)
    style_frame(axes)
    axes.margins(y=0.12)
