"""The one picture: accuracy over cost, with every single model, the coin toss, the oracle and eccos' frontier on it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eccos_core.evaluation.palette import FAINT, INK, OWN, REFERENCE
from eccos_core.io.files import atomic_writer
from eccos_core.io.optional import needs_extra

if TYPE_CHECKING:
    from eccos_core.evaluation.report import EvaluationReport


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """A point to draw: a model, the oracle, or where eccos ran. cost in USD per 1,000 questions."""

    name: str
    usd_per_1k: float
    accuracy: float


Line = Sequence[tuple[float, float]]  # (USD per 1,000 questions, accuracy), from cheap to dear


def frontier_picture(
    path: str | Path,
    *,
    title: str,
    singles: Sequence[PlotPoint],
    frontiers: Mapping[str, Line],
    random_mix: Line,
    oracle: PlotPoint | None = None,
    chosen: PlotPoint | None = None,
) -> Path:
    """Write the picture as PNG (or what the suffix says: .svg, .pdf) and return its path.

    singles: labelled dots. frontiers: eccos' lines by name, the first one drawn strongest; the most interesting one
    first. random_mix: the single models' convex hull, dashed. oracle, chosen: a star, and a ring with a label at the
    operating point that was really run. The cost axis is logarithmic where costs span more than a factor of 6.
    """
    path = Path(path)
    with needs_extra("report", "a picture"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no window, no global state
    axes = figure.subplots()
    _set_up(axes, title, singles, frontiers, random_mix)
    lines = {"random mix of single models": random_mix, **frontiers}
    for position, (name, line) in enumerate(lines.items()):
        style: dict[str, Any] = {"linestyle": "--", "color": REFERENCE, "linewidth": 1.4}
        if position:
            style = {"color": OWN[(position - 1) % len(OWN)], "linewidth": 2.8 - 0.4 * min(position, 3)}
        axes.plot(*_dense(line), label=name, zorder=3 - 0.1 * position, **style)
    axes.scatter([spot.usd_per_1k for spot in singles], [spot.accuracy for spot in singles], s=34, color=INK, zorder=6)
    marked = list(singles)
    if oracle is not None:
        axes.scatter([oracle.usd_per_1k], [oracle.accuracy], marker="*", s=190, color="#e6b000", zorder=7)
        marked.append(oracle)
    if chosen is not None:
        look: dict[str, Any] = {"facecolor": "white", "edgecolor": OWN[0], "linewidth": 2.6, "zorder": 8}
        axes.scatter([chosen.usd_per_1k], [chosen.accuracy], s=150, **look)
        marked.append(chosen)
    columns = min(3, len(lines))
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.995), ncols=columns, frameon=False, fontsize=9, borderaxespad=0
    )
    _label(axes, marked, chosen, [_dense(line) for line in lines.values()])
    kind = path.suffix.lstrip(".") or "png"
    content = io.BytesIO()
    figure.savefig(content, format=kind)
    with atomic_writer(path) as stream:
        stream.write(content.getvalue())
    return path


def report_picture(report: EvaluationReport, path: str | Path, routers: Sequence[str] = ()) -> Path:
    """`frontier_picture` of an evaluation report, with the frontiers of these routers: of eccos' best unless given."""
    if not routers:
        ranked = sorted(report.results.values(), key=lambda each: (each.role != "eccos", -each.score.area))
        routers = [each.name for each in ranked if each.role in ("eccos", "baseline")][:1]
    singles = [
        PlotPoint(result.name, *_thousand(result.score.frontier)[0])
        for result in report.results.values()
        if result.role == "single"
    ]
    best = _thousand(report.results["oracle"].score.frontier)[-1]
    return frontier_picture(
        path,
        title=f"{report.dataset}: {report.test:,} test questions",
        singles=singles,
        frontiers={name: _thousand(report.results[name].score.frontier) for name in routers},
        random_mix=_thousand(report.results["random_mix"].score.frontier),
        oracle=PlotPoint("oracle", *best),
    )


def _thousand(frontier: Any) -> list[tuple[float, float]]:
    return [(1000 * cost, gain) for cost, gain in zip(frontier.cost_usd, frontier.accuracy, strict=True)]


def _dense(line: Line) -> tuple[list[float], list[float]]:
    """Costs and accuracies of a line with many points: what is straight in USD is bent on a logarithmic axis."""
    costs, accuracies = [cost for cost, _ in line], [accuracy for _, accuracy in line]
    low, high = costs[0], costs[-1]
    between = np.geomspace(low, high, 300) if low > 0 else np.linspace(low, high, 300)
    every = np.unique(np.concatenate([costs, np.clip(between, low, high)]))
    return every.tolist(), np.interp(every, costs, accuracies).tolist()


def _set_up(
    axes: Any, title: str, singles: Sequence[PlotPoint], frontiers: Mapping[str, Line], random_mix: Line
) -> None:
    """Axes, title and grid."""
    with needs_extra("report", "a picture"):
        from matplotlib.ticker import FuncFormatter, PercentFormatter

    costs = [spot.usd_per_1k for spot in singles] + [
        cost for line in (random_mix, *frontiers.values()) for cost, _ in line
    ]
    positive = [cost for cost in costs if cost > 0]
    logarithmic = len(positive) == len(costs) and max(positive) > 6 * min(positive)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(positive) / 1.6, max(positive) * 2.2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("USD per 1,000 questions" + (" (logarithmic)" if logarithmic else ""), color=INK)
    axes.set_ylabel("answered well", color=INK)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=24)
    axes.grid(True, which="major", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.margins(y=0.12)


def _label(
    axes: Any, spots: Sequence[PlotPoint], chosen: PlotPoint | None, lines: Sequence[tuple[list[float], list[float]]]
) -> None:
    """Names beside the dots, where they lie on no dot, line or other name as far as that is possible."""
    with needs_extra("report", "a picture"):
        from matplotlib.patheffects import withStroke

    axes.figure.draw_without_rendering()
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    dots = [axes.transData.transform((spot.usd_per_1k, spot.accuracy)) for spot in spots]
    on_lines = [axes.transData.transform(np.column_stack(line)) for line in lines]
    taken: list[Any] = []
    for spot in sorted(spots, key=lambda each: (each is not chosen, -each.accuracy)):
        style: dict[str, Any] = {"fontsize": 8, "color": INK}
        if spot is chosen:
            style = {"fontsize": 9.5, "color": OWN[0], "fontweight": "bold"}
        tried = []
        for rank, (offset, place) in enumerate(_PLACES):
            note = axes.annotate(
                spot.name,
                (spot.usd_per_1k, spot.accuracy),
                offset,
                textcoords="offset points",
                zorder=5.5,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                **style,
                **place,
            )
            box = note.get_window_extent(renderer)
            outside = not (frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1))
            trouble = 10 * outside + 6 * sum(box.overlaps(other) for other in taken)
            trouble += 4 * sum(box.padded(9).contains(*dot) for dot in dots) + sum(
                box.count_contains(on) > 0 for on in on_lines
            )
            tried.append((trouble, rank, note, box))
        best = min(tried, key=lambda each: each[:2])
        for each in tried:
            if each is not best:
                each[2].remove()
        taken.append(best[3])


_PLACES: tuple[tuple[tuple[float, float], dict[str, str]], ...] = (
    ((8, -3), {"ha": "left"}),
    ((0, 8), {"ha": "center"}),
    ((0, -15), {"ha": "center"}),
    ((-8, -3), {"ha": "right"}),
    ((8, 8), {"ha": "left"}),
    ((8, -14), {"ha": "left"}),
    ((-8, 8), {"ha": "right"}),
    ((-8, -14), {"ha": "right"}),
    ((8, -25), {"ha": "left"}),
    ((-8, -25), {"ha": "right"}),
    ((8, 19), {"ha": "left"}),
)
