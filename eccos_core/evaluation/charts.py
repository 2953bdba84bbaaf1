"""What the charts of both libraries, plotly and matplotlib, share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eccos_core.domain import FloatArray


def densify(costs: npt.ArrayLike, accuracies: npt.ArrayLike, points: int) -> tuple[FloatArray, FloatArray]:
    """Add points to a line, given by increasing costs (P,) and accuracies (P,).

    A straight line in USD is a curve on a logarithmic axis, so a chart needs the points between the corners.
    """
    cost_array, accuracy_array = np.asarray(costs, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    low, high = float(cost_array[0]), float(cost_array[-1])
    between = np.geomspace(low, high, points) if low > 0 else np.linspace(low, high, points)
    dense = np.unique(np.concatenate([cost_array, np.clip(between, low, high)]))
    return dense, np.interp(dense, cost_array, accuracy_array)


def prefers_log_axis(costs: Sequence[float]) -> bool:
    """Tell whether a logarithmic cost axis fits: all costs are positive and span more than a factor of 6."""
    return min(costs) > 0 and max(costs) > 6 * min(costs)
