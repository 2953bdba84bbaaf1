"""Names of points in a chart: none covers another, a dot, or the edge."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.evaluation.plot_labels import is_far, place_boxes

DOT_RADIUS = 6.0
FRAME = (0.0, 0.0, 760.0, 440.0)


def overlaps(centres: np.ndarray, sizes: np.ndarray, dots: np.ndarray) -> int:
    """Pairs of names that overlap, and dots that a name covers."""
    count = 0
    for i in range(len(centres)):
        for j in range(i):
            count += bool((np.abs(centres[i] - centres[j]) < (sizes[i] + sizes[j]) / 2).all())
        count += int((np.abs(centres[i] - dots) < sizes[i] / 2 + DOT_RADIUS).all(axis=1).sum())
    return count


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("count", "spread"), [(34, 1.0), (34, 0.3), (57, 1.0), (57, 0.5)])
def test_many_names_cover_neither_each_other_nor_a_dot(seed: int, count: int, spread: float) -> None:
    draw = np.random.default_rng(seed)
    dots = np.array([380.0, 220.0]) + spread * (draw.random((count, 2)) - 0.5) * [700, 400]
    sizes = np.column_stack([draw.uniform(40, 150, count), np.full(count, 14.0)])
    centres = place_boxes(dots, np.full(count, DOT_RADIUS), sizes, FRAME)
    assert overlaps(centres, sizes, dots) == 0
    assert (centres - sizes / 2 >= 0).all()
    assert (centres + sizes / 2 <= FRAME[2:]).all()


def test_a_lonely_name_stands_beside_its_dot() -> None:
    dot, size = np.array([[380.0, 220.0]]), np.array([[60.0, 14.0]])
    (centre,) = place_boxes(dot, np.array([DOT_RADIUS]), size, FRAME)
    assert centre.tolist() == [380 + 30 + DOT_RADIUS, 220]
    assert not is_far(centre, dot[0], size[0])
    assert is_far(centre + np.array([40, 0]), dot[0], size[0])


def test_a_name_leaves_the_line_that_it_need_not_cover() -> None:
    dot, size = np.array([[380.0, 220.0]]), np.array([[60.0, 14.0]])
    to_the_right = np.column_stack([np.linspace(380, 760, 50), np.full(50, 220.0)])
    (centre,) = place_boxes(dot, np.array([DOT_RADIUS]), size, FRAME, to_the_right)
    assert centre[1] != 220


def test_at_the_edge_a_name_turns_inwards() -> None:
    (centre,) = place_boxes(np.array([[750.0, 220.0]]), np.array([DOT_RADIUS]), np.array([[100.0, 14.0]]), FRAME)
    assert centre[0] + 50 <= 760
