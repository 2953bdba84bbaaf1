"""The linear program behind every policy: one objective, at most one side constraint, limits on counts per model.

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

_MANTISSA_BITS = 40  # numbers are kept to this many bits, so that scaled copies of one problem have the same ties


@dataclass(frozen=True, slots=True, eq=False)
class DualPrices:
    """side: price of the side constraint, >= 0; counts (K,): prices of the count rows, >= 0. Objective units."""

    side: float
    counts: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LinearProgram:
    """objective, side (M, R); allowed (M, R) or None when all are; count_rows (K, M); count_limits (K,).

    kinds (R,): equal for requests that are equal in all numbers; None when no two are.
    """

    objective: FloatArray
    side: FloatArray | None
    side_limit: float
    allowed: BoolArray | None
    count_rows: FloatArray
    count_limits: FloatArray
    kinds: IntArray | None = None

    @property
    def models(self) -> int:
        """M, the number of models."""
        return int(self.objective.shape[0])

    @property
    def requests(self) -> int:
        """R, the number of requests."""
        return int(self.objective.shape[1])

    def without_side(self, objective: FloatArray | None = None) -> LinearProgram:
        """The same counts and eligibility, no side constraint, and another objective if one is given."""
        return replace(self, objective=self.objective if objective is None else objective, side=None, side_limit=0.0)

    def no_prices(self) -> DualPrices:
        """All prices zero."""
        return DualPrices(0.0, np.zeros(len(self.count_limits)))

    def values(self, prices: DualPrices) -> FloatArray:
        """(M, R): objective at the prices; infinite where not allowed. Every request's best model has the least."""
        value = self.objective + (prices.counts @ self.count_rows)[:, None]
        if self.side is not None and prices.side:
            value += prices.side * self.side
        if self.allowed is not None:
            value[~self.allowed] = np.inf
        return value

    def bound(self, prices: DualPrices, values: FloatArray | None = None) -> float:
        """The Lagrangian bound: no feasible assignment has a lower objective."""
        values = self.values(prices) if values is None else values
        least = float(values.min(axis=0).sum())
        return least - prices.side * self.side_limit - float(prices.counts @ self.count_limits)

    def loads(self, choice: IntArray) -> FloatArray:
        """(M,) how many requests of the assignment (R,) go to each model."""
        return np.bincount(choice, minlength=self.models).astype(np.float64)

    def count_slack(self, choice: IntArray) -> FloatArray:
        """(K,) what is left of every count limit; negative where it is passed."""
        slack: FloatArray = self.count_limits - self.count_rows @ self.loads(choice)
        return slack

    def objective_of(self, choice: IntArray) -> float:
        """The objective of an assignment (R,)."""
        return float(self.objective[choice, np.arange(self.requests)].sum())

    def side_slack(self, choice: IntArray) -> float:
        """What is left of the side limit; negative where it is passed; infinite without a side constraint."""
        if self.side is None:
            return math.inf
        return self.side_limit - float(self.side[choice, np.arange(self.requests)].sum())

    def feasible(self, choice: IntArray) -> bool:
        """Whether the assignment (R,) keeps side constraint, counts and eligibility."""
        eligible = self.allowed is None or bool(self.allowed[choice, np.arange(self.requests)].all())
        return eligible and self.side_slack(choice) >= 0 and bool((self.count_slack(choice) >= 0).all())


def count_limits(
    requests: int, capacity: npt.NDArray[np.int64], groups: Sequence[GroupShare]
) -> tuple[FloatArray, FloatArray]:
    """The rows and limits on calls per model: caps that can bind first (by model), then group shares.

    capacity (M,), groups in the same model order -> rows (K, M), limits (K,), all whole numbers.
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
    """An order of the rows of matrices (R, M) that depends on what stands in them, not on where they stand.

    Sorts a 64-bit hash of each row's bits: exact integer arithmetic, so equal rows have equal keys at any place.
    """
    key = np.zeros(matrices[0].shape[0], dtype=np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for matrix in matrices:
            for column in range(matrix.shape[1]):
                key = (key ^ np.ascontiguousarray(matrix[:, column]).view(np.uint64)) * multiplier
                key ^= key >> np.uint64(29)
    return np.argsort(key, kind="stable").astype(np.int64)


def equal_neighbours(*matrices: npt.NDArray[np.float64] | BoolArray) -> IntArray | None:
    """(R,) numbers that are the same for equal columns of matrices (M, R) that stand together; None if no two do."""
    same = np.ones(matrices[0].shape[1] - 1, dtype=np.bool_)
    for matrix in matrices:
        same &= (matrix[:, 1:] == matrix[:, :-1]).all(axis=0)
    if not same.any():
        return None
    return np.concatenate([[0], np.cumsum(~same)]).astype(np.int64)


def rounded(values: npt.NDArray[np.float64]) -> FloatArray:
    """Values kept to 40 bits (relative error below 1e-12): costs in USD and in cents then tie alike."""
    mantissa, exponent = np.frexp(values)
    kept: FloatArray = np.ldexp(np.rint(mantissa * 2.0**_MANTISSA_BITS), exponent - _MANTISSA_BITS)
    return kept
