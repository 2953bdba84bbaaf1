"""Express every policy as one program: an objective, at most one side constraint, and limits on counts per model.

    minimise    sum objective[j, i] x[j, i]
    subject to  sum_j x[j, i] = 1                    every request is answered once
                sum side[j, i] x[j, i] <= side_limit   the floor (side = -quality) or the budget (side = cost)
                count_rows @ n <= count_limits       n[j] = sum_i x[j, i]: caps and group shares
                x[j, i] = 0 where not allowed

Arrays are laid out (M, R), models first: sums over models are then long contiguous additions, several times faster in
numpy than sums over short rows. Requests stand in a canonical order, models by name, so that an answer does not depend
on the order in which either was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eccos_core.domain import BoolArray, FloatArray, GroupShare, IntArray

ROUNDING = 1e-11  # relative: more than a sum of floating point numbers is off by
_MANTISSA_BITS = 40  # numbers are kept to this many bits, so that scaled copies of one problem have the same ties


@dataclass(frozen=True, slots=True, eq=False)
class DualPrices:
    """Dual variables, all >= 0, in objective units: `side` of the side constraint, `counts` (K,) of the count rows."""

    side: float
    counts: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LinearProgram:
    """`objective`, `side` (M, R); `allowed` (M, R) or None when all are; `count_rows` (K, M); `count_limits` (K,).

    `duplicate_class` (R,) has equal numbers for requests whose columns are equal. It is None when no two are.
    """

    objective: FloatArray
    side: FloatArray | None
    side_limit: float
    allowed: BoolArray | None
    count_rows: FloatArray
    count_limits: FloatArray
    duplicate_class: IntArray | None = None

    @property
    def models(self) -> int:
        """M, the number of models."""
        return int(self.objective.shape[0])

    @property
    def requests(self) -> int:
        """R, the number of requests."""
        return int(self.objective.shape[1])

    @property
    def coupling_limits(self) -> FloatArray:
        """The limit of the side constraint, if there is one, and those of the counts."""
        head = [] if self.side is None else [self.side_limit]
        return np.concatenate([head, self.count_limits])

    def without_side(self, objective: FloatArray | None = None) -> LinearProgram:
        """Return the program without its side constraint, with another objective if one is given."""
        return replace(self, objective=self.objective if objective is None else objective, side=None, side_limit=0.0)

    def zero_prices(self) -> DualPrices:
        """Return prices that are all zero."""
        return DualPrices(0.0, np.zeros(len(self.count_limits)))

    def lagrangian_costs(self, prices: DualPrices) -> FloatArray:
        """Return objective + priced constraints, (M, R), infinite where not allowed. Each request takes the least."""
        value = self.objective + (prices.counts @ self.count_rows)[:, None]
        if self.side is not None and prices.side:
            value += prices.side * self.side
        if self.allowed is not None:
            value[~self.allowed] = np.inf
        return value

    def lagrangian_bound(self, prices: DualPrices, values: FloatArray | None = None) -> float:
        """Return the Lagrangian lower bound on the objective of every feasible assignment."""
        values = self.lagrangian_costs(prices) if values is None else values
        least = float(values.min(axis=0).sum())
        return least - prices.side * self.side_limit - float(prices.counts @ self.count_limits)

    def open_options(self, prices: DualPrices, incumbent: IntArray) -> BoolArray:
        """Return the choices (M, R) that an assignment better than the feasible `incumbent` (R,) may contain.

        An assignment exceeds the Lagrangian bound by at least the sum of its reduced costs. So a choice whose reduced
        cost exceeds the incumbent's gap is in no better one (reduced cost fixing).
        """
        columns = np.arange(self.requests)
        costs = self.lagrangian_costs(prices)
        gap = self.objective_of(incumbent) - self.lagrangian_bound(prices, costs)
        magnitude = float(np.abs(self.objective[incumbent, columns]).sum()) + prices.side * abs(self.side_limit)
        magnitude += float(prices.counts @ np.abs(self.count_limits))
        options: BoolArray = costs - costs.min(axis=0) <= gap + ROUNDING * magnitude
        options[incumbent, columns] = True
        return options

    def loads(self, choice: IntArray) -> FloatArray:
        """Return how many requests of an assignment (R,) go to each model, (M,)."""
        return np.bincount(choice, minlength=self.models).astype(np.float64)

    def count_slack(self, choice: IntArray) -> FloatArray:
        """Return the slack of every count limit, (K,), negative where it is violated."""
        slack: FloatArray = self.count_limits - self.count_rows @ self.loads(choice)
        return slack

    def objective_of(self, choice: IntArray) -> float:
        """Return the objective of an assignment (R,)."""
        return float(self.objective[choice, np.arange(self.requests)].sum())

    def side_slack(self, choice: IntArray) -> float:
        """Return the slack of the side constraint: negative if violated, infinite if there is none."""
        if self.side is None:
            return math.inf
        return self.side_limit - float(self.side[choice, np.arange(self.requests)].sum())

    def is_feasible(self, choice: IntArray) -> bool:
        """Return whether an assignment (R,) keeps side constraint, count limits and eligibility."""
        eligible = self.allowed is None or bool(self.allowed[choice, np.arange(self.requests)].all())
        return eligible and self.side_slack(choice) >= 0 and bool((self.count_slack(choice) >= 0).all())


def count_limits(
    requests: int, capacity: npt.NDArray[np.int64], groups: Sequence[GroupShare]
) -> tuple[FloatArray, FloatArray]:
    """Return the count rows (K, M) and limits (K,): caps that can bind, by model, then group shares.

    `capacity` is (M,). Groups have the same model order. All limits are whole numbers.
    """
    models = len(capacity)
    rows = [np.eye(models)[j] for j in range(models) if capacity[j] < requests]
    limits = [float(capacity[j]) for j in range(models) if capacity[j] < requests]
    for group in groups:
        members = np.asarray(group.members, dtype=np.float64)
        if group.at_most < 1:
            rows.append(members)
            limits.append(float(math.floor(group.at_most * requests + 1e-9)))
        if group.at_least > 0:
            rows.append(-members)
            limits.append(-float(math.ceil(group.at_least * requests - 1e-9)))
    if not rows:
        return np.zeros((0, models)), np.zeros(0)
    return np.stack(rows), np.asarray(limits)


def canonical_order(*matrices: npt.NDArray[np.float64]) -> IntArray:
    """Return an order of the rows of `matrices` (R, M) that depends on their content alone.

    It sorts a 64-bit hash of each row's bits. Integer arithmetic is exact, so equal rows have equal keys.
    """
    key = np.zeros(matrices[0].shape[0], dtype=np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for matrix in matrices:
            for column in range(matrix.shape[1]):
                key = (key ^ np.ascontiguousarray(matrix[:, column]).view(np.uint64)) * multiplier
                key ^= key >> np.uint64(29)
    return np.argsort(key, kind="stable").astype(np.int64)


def duplicate_classes(*matrices: npt.NDArray[np.float64] | BoolArray) -> IntArray | None:
    """Number the columns of `matrices` (M, R) so that equal neighbours share a number. None if no two are equal."""
    same = np.ones(matrices[0].shape[1] - 1, dtype=np.bool_)
    for matrix in matrices:
        same &= (matrix[:, 1:] == matrix[:, :-1]).all(axis=0)
    if not same.any():
        return None
    return np.concatenate([[0], np.cumsum(~same)]).astype(np.int64)


def round_mantissa(values: npt.NDArray[np.float64]) -> FloatArray:
    """Round values to 40 bits (relative error below 1e-12), so that costs in USD and in cents have the same ties."""
    mantissa, exponent = np.frexp(values)
    kept: FloatArray = np.ldexp(np.rint(mantissa * 2.0**_MANTISSA_BITS), exponent - _MANTISSA_BITS)
    return kept
