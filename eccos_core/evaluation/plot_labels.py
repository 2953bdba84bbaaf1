"""Place the names of points in a matplotlib chart so that they cover as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.evaluation.palette import ECCOS_COLOURS, INK
from eccos_core.io.optional import needs_extra

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


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """A point to draw: a model, the oracle, or the operating point that was run. Cost in USD per 1,000 questions."""

    name: str
    usd_per_1k: float
    accuracy: float


def place_labels(
    axes: Any, points: Sequence[PlotPoint], chosen: PlotPoint | None, lines: Sequence[tuple[FloatArray, FloatArray]]
) -> None:
    """Write each point's name beside it, where it covers no dot, line or other name if possible."""
    with needs_extra("report", "a picture"):
        from matplotlib.patheffects import withStroke

    axes.figure.draw_without_rendering()
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    dots = [axes.transData.transform((point.usd_per_1k, point.accuracy)) for point in points]
    on_lines = [axes.transData.transform(np.column_stack(line)) for line in lines]
    taken: list[Any] = []
    for point in sorted(points, key=lambda each: (each is not chosen, -each.accuracy)):
        style: dict[str, Any] = {"fontsize": 8, "color": INK}
        if point is chosen:
            style = {"fontsize": 9.5, "color": ECCOS_COLOURS[0], "fontweight": "bold"}
        candidates = []
        for rank, (offset, place) in enumerate(_PLACES):
            text = axes.annotate(
                point.name,
                (point.usd_per_1k, point.accuracy),
                offset,
                textcoords="offset points",
                zorder=5.5,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                **style,
                **place,
            )
            box = text.get_window_extent(renderer)
            outside = not (frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1))
            overlap = 10 * outside + 6 * sum(box.overlaps(other) for other in taken)
            overlap += 4 * sum(box.padded(9).contains(*dot) for dot in dots) + sum(
                box.count_contains(on) > 0 for on in on_lines
            )
            candidates.append((overlap, rank, text, box))
        best = min(candidates, key=lambda each: each[:2])
        for each in candidates:
            if each is not best:
                each[2].remove()
        taken.append(best[3])
