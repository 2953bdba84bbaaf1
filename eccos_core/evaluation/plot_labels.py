"""Place the names of points in a chart so that no name covers another name or a dot. Both chart libraries use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.evaluation.palette import ECCOS_COLOURS, INK
from eccos_core.io.optional import needs_extra

LEADER_FROM = 1.5  # heights of a name between it and its dot, beyond which a line joins them
POINTS_PER_INCH = 72.0
_DIRECTIONS = tuple(np.exp(1j * np.pi * np.array([0, 0.5, -0.5, 1, 0.25, -0.25, 0.75, -0.75])))
_DISTANCES = (1, 2, 3, 4, 6, 8, 11, 14, 18, 23, 29, 36)  # in steps of half a line of text


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """A point to draw: a model, the oracle, or the operating point that was run. Cost in USD per 1,000 questions.

    radius: of its mark, in typographic points.
    """

    name: str
    usd_per_1k: float
    accuracy: float
    radius: float = 4.0


def place_boxes(
    dots: FloatArray,
    radii: FloatArray,
    sizes: FloatArray,
    frame: tuple[float, float, float, float],
    lines: FloatArray | None = None,
) -> FloatArray:
    """Choose the centre (P, 2) of each point's name, in pixels. The first points choose first.

    dots (P, 2) and radii (P,) are the points, sizes (P, 2) the widths and heights of the names, frame (left, bottom,
    right, top). A name takes the nearest place where it covers no dot, no other name and nothing outside the frame.
    Among equally near places it takes one that covers none of `lines` (Q, 2). If no place in reach is free, it takes
    the place that covers least.
    """
    steps = np.array([[way.real, way.imag] for way in _DIRECTIONS])
    centres = np.empty_like(dots)
    for index, (dot, radius, size) in enumerate(zip(dots, radii, sizes, strict=True)):
        candidates = np.array(
            [
                dot + step * (size / 2 + radius + (distance - 1) * size[1] / 2)
                for distance, step in product(_DISTANCES, np.where(np.abs(steps) < 0.1, 0, np.sign(steps)))
            ]
        )
        cost = 100.0 * _outside(candidates, size, frame)
        cost += 100.0 * _covered(candidates, size, centres[:index], sizes[:index]).sum(axis=1)
        cost += 100.0 * _covered(candidates, size, dots, 2 * radii[:, None] + np.zeros(2)).sum(axis=1)
        cost += np.arange(len(candidates)) // len(steps)  # the distance
        if lines is not None:
            cost += 0.9 * _covered(candidates, size, lines, np.zeros(lines.shape)).any(axis=1)
        centres[index] = candidates[int(np.argmin(cost))]
    return centres


def _covered(centres: FloatArray, size: FloatArray, others: FloatArray, other_sizes: FloatArray) -> BoolArray:
    """Tell which boxes of one size at centres (C, 2) overlap which other boxes (B, 2): (C, B)."""
    apart = np.abs(centres[:, None] - others[None])
    return np.asarray((apart < (size + other_sizes) / 2).all(axis=2))


def _outside(centres: FloatArray, size: FloatArray, frame: tuple[float, float, float, float]) -> BoolArray:
    left, bottom, right, top = frame
    low, high = centres - size / 2, centres + size / 2
    return np.asarray((low[:, 0] < left) | (low[:, 1] < bottom) | (high[:, 0] > right) | (high[:, 1] > top))


def place_labels(
    axes: Any, points: Sequence[PlotPoint], chosen: PlotPoint | None, lines: Sequence[tuple[FloatArray, FloatArray]]
) -> None:
    """Write each point's name beside it in a matplotlib chart. A thin line joins a name to a dot that is far away."""
    with needs_extra("report", "a picture"):
        from matplotlib.patheffects import withStroke

    axes.figure.draw_without_rendering()
    renderer = axes.figure.canvas.get_renderer()
    ordered = sorted(points, key=lambda each: (each is not chosen, -each.accuracy))
    texts = []
    for point in ordered:
        style: dict[str, Any] = {"fontsize": 8, "color": INK}
        if point is chosen:
            style = {"fontsize": 9.5, "color": ECCOS_COLOURS[0], "fontweight": "bold"}
        outline = [withStroke(linewidth=2.5, foreground="white")]
        texts.append(axes.text(0, 0, point.name, ha="center", va="center", zorder=5.5, path_effects=outline, **style))
    boxes = [text.get_window_extent(renderer) for text in texts]
    frame = axes.get_window_extent(renderer)
    dots = axes.transData.transform([(point.usd_per_1k, point.accuracy) for point in ordered])
    on_lines = np.concatenate([axes.transData.transform(np.column_stack(line)) for line in lines])
    sizes = np.array([[box.width + 2, box.height + 1] for box in boxes])
    radii = np.array([point.radius for point in ordered]) * axes.figure.dpi / POINTS_PER_INCH
    centres = place_boxes(dots, radii, sizes, (frame.x0, frame.y0, frame.x1, frame.y1), on_lines)
    to_data = axes.transData.inverted()
    for text, centre, dot, size in zip(texts, centres, dots, sizes, strict=True):
        text.set_position(to_data.transform(centre))
        if is_far(centre, dot, size):
            start, end = to_data.transform([dot, centre])
            axes.plot(
                *np.transpose([start, end]), color=INK, linewidth=0.5, alpha=0.5, zorder=5.2, scalex=False, scaley=False
            )


def is_far(centre: FloatArray, dot: FloatArray, size: FloatArray) -> bool:
    """Tell whether a name of this size is so far from its dot that a line should join them."""
    gap = np.maximum(np.abs(centre - dot) - size / 2, 0.0)
    return bool(np.hypot(*gap) > LEADER_FROM * size[1])
