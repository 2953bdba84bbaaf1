"""Maximise the Lagrangian dual by Newton's method on a smoothed dual function, along a central path.

At dual variables y every request takes min_j v[j, i](y). The dual function is the sum of these minima less limits @ y.
It has one variable per coupling constraint (K caps and shares, and one floor or budget), however many requests there
are. The minimum is replaced by a soft minimum at temperature T (entropic smoothing: Nesterov, "Smooth minimization of
non-smooth functions", 2005; Cominetti and San Martin, 1994), a logarithmic barrier keeps y >= 0, and T falls along the
path. Each step solves a (K + 1) x (K + 1) system made in one pass over the requests, in chunks that fit the cache.
With many requests the dual function is nearly smooth: the bound is off by O(T^2), so few temperatures are needed.

Correctness does not depend on convergence: `LinearProgram.lagrangian_bound` is a valid bound at any prices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

_CHUNK_ENTRIES = 32_768  # numbers per temporary array: 256 KB, so that a chunk's few arrays stay in the cache
_COOLING = 0.1
_STEP_TO_BOUNDARY = 0.9
_MAX_GROWTH = 1e6  # of a price in one step: where no price is enough, it must not overflow
_MAX_SIDE_PRICE = 1e9  # of a floor or budget, in differences of objective over differences of the side constraint
_MAX_NEWTON_STEPS = 20  # at one temperature
MAX_UNSETTLED = 4  # temperatures at which Newton's method may fail, from a good start
_MAX_BACKTRACKS = 12  # of the line search
SAMPLE_REQUESTS = 2_000
WARM_START = 0.05  # of the unit of temperature, where a sample gives the prices


@dataclass(frozen=True, slots=True, eq=False)
class _DualPoint:
    """The smoothed dual at one point.

    `value` is the smoothed dual function, `activity` (K,) the left-hand sides of the coupling rows, and `hessian`
    (K, K) the negative second derivative. `bound` is the dual function without smoothing, `objective` that of the soft
    choice.
    """

    value: float
    activity: FloatArray
    hessian: FloatArray
    bound: float
    objective: float


@dataclass(frozen=True, slots=True, eq=False)
class DualSums:
    """What one pass over requests adds up at one point of the smoothed dual. Sums of parts of a batch add up too.

    `soft` and `hard` are the sums of soft and of true minima, `objective` and `side` those of the soft choice, and
    `loads` (M,) its requests per model. `load_products` (M, M), `side_products` (M,) and `side_variance` make the
    second derivative.
    """

    soft: float
    hard: float
    objective: float
    loads: FloatArray
    load_products: FloatArray
    side: float
    side_variance: float
    side_products: FloatArray

    @classmethod
    def zero(cls, models: int) -> DualSums:
        """Return the sums over no requests."""
        return cls(0.0, 0.0, 0.0, np.zeros(models), np.zeros((models, models)), 0.0, 0.0, np.zeros(models))

    def __add__(self, other: DualSums) -> DualSums:
        return DualSums(
            self.soft + other.soft,
            self.hard + other.hard,
            self.objective + other.objective,
            self.loads + other.loads,
            self.load_products + other.load_products,
            self.side + other.side,
            self.side_variance + other.side_variance,
            self.side_products + other.side_products,
        )


class SmoothedDual(ABC):
    """The smoothed dual function of a program. Row 0 of the coupling rows is the side constraint when there is one.

    `rows` (K, M) are the count rows, and `limits` those of the side constraint and of the count rows. `spread` and
    `side_spread` are the largest differences of objective and side between two models of one request.
    """

    rows: FloatArray
    limits: FloatArray
    has_side: bool
    spread: float
    side_spread: float

    @abstractmethod
    def sums(self, y: FloatArray, temperature: float) -> DualSums:
        """Add up over all requests at the prices y."""

    def upper_limit(self, y: FloatArray) -> FloatArray:
        """Return (K,) upper limits on the prices, which keep them finite where a count limit leaves no choice.

        One more slot saves at most a chain of exchanges through all models. At a higher price of the floor or budget
        (row 0) than the limit, rounding alone decides. Without one, it would grow until it overflows where no price is
        enough.
        """
        worth = self.spread + float(y[0]) * self.side_spread if self.has_side else self.spread
        most = np.full(len(y), (self.rows.shape[1] + 1) * worth + 1e-6)
        if self.has_side:
            most[0] = _MAX_SIDE_PRICE * (self.spread + 1e-6) / max(self.side_spread, 1e-12)
        return most

    def evaluate(self, y: FloatArray, temperature: float) -> _DualPoint:
        """Return value and derivatives at the prices y."""
        sums = self.sums(y, temperature)
        covariance = sums.load_products.copy()
        covariance[np.diag_indices(len(covariance))] += sums.loads
        counts = self.rows @ covariance @ self.rows.T
        if not self.has_side:
            activity, hessian = self.rows @ sums.loads, counts
        else:
            activity = np.concatenate([[sums.side], self.rows @ sums.loads])
            mixed = self.rows @ sums.side_products
            hessian = np.block([[np.array([[sums.side_variance]]), mixed[None, :]], [mixed[:, None], counts]])
        rest = float(y @ self.limits)
        return _DualPoint(
            sums.hard + sums.soft - rest, activity, hessian / temperature, sums.hard - rest, sums.objective
        )


class ProgramDual(SmoothedDual):
    """The smoothed dual function of a program in memory."""

    def __init__(self, program: LinearProgram) -> None:
        self.program = program
        self.side = program.side
        self.has_side = program.side is not None
        self.rows = program.count_rows
        self.limits = program.coupling_limits
        self.spread = float(np.ptp(program.objective, axis=0).max())
        self.side_spread = 0.0 if program.side is None else float(np.ptp(program.side, axis=0).max())

    def sums(self, y: FloatArray, temperature: float) -> DualSums:
        """See `SmoothedDual.sums`."""
        return sum_dual(self.program, y, temperature)

    def shares(self, y: FloatArray, temperature: float) -> FloatArray:
        """Return the soft choice of every request, (M, R)."""
        return soft_shares(self.program, y, temperature)


def _chunks(program: LinearProgram) -> Iterator[slice]:
    width = max(1, _CHUNK_ENTRIES // program.models)
    for start in range(0, program.requests, width):
        yield slice(start, min(start + width, program.requests))


def _values(program: LinearProgram, y: FloatArray, part: slice) -> FloatArray:
    """Return the Lagrangian costs of a chunk of requests, (M, chunk), infinite where not allowed."""
    if program.side is None:
        value = program.objective[:, part] + (y @ program.count_rows)[:, None]
    else:
        value = y[0] * program.side[:, part]
        value += program.objective[:, part]
        value += (y[1:] @ program.count_rows)[:, None]
    if program.allowed is not None:
        value[~program.allowed[:, part]] = np.inf
    return value


def sum_dual(program: LinearProgram, y: FloatArray, temperature: float) -> DualSums:
    """Add up over the requests of a program, in chunks that fit the cache. The limits of the program do not count."""
    models = program.models
    loads, load_products = np.zeros(models), np.zeros((models, models))
    side_products, side_sum, side_variance, soft, hard, objective = np.zeros(models), 0.0, 0.0, 0.0, 0.0, 0.0
    for part in _chunks(program):
        value = _values(program, y, part)
        least = value.min(axis=0)
        value -= least
        value *= -1.0 / temperature
        share = np.exp(value, out=value)
        mass = share.sum(axis=0)
        share /= mass
        hard += float(least.sum())
        soft -= temperature * float(np.log(mass).sum())
        loads += share.sum(axis=1)
        objective += float(np.vdot(share, program.objective[:, part]))
        load_products -= share @ share.T
        if program.side is not None:
            weighted = share * program.side[:, part]
            mean = weighted.sum(axis=0)
            by_model = weighted.sum(axis=1)
            side_products += by_model - share @ mean
            side_sum += float(by_model.sum())
            side_variance += float(np.vdot(weighted, program.side[:, part]) - mean @ mean)
    return DualSums(soft, hard, objective, loads, load_products, side_sum, side_variance, side_products)


def soft_shares(program: LinearProgram, y: FloatArray, temperature: float) -> FloatArray:
    """Return the soft choice of every request at the prices y, (M, R)."""
    share = np.empty((program.models, program.requests))
    for part in _chunks(program):
        value = _values(program, y, part)
        value -= value.min(axis=0)
        value *= -1.0 / temperature
        np.exp(value, out=value)
        value /= value.sum(axis=0)
        share[:, part] = value
    return share


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """The solved relaxation: prices with the best bound found, and nearly optimal fractional shares (M, R).

    `converged` is False where Newton's method gave up: a limit binds so tightly that it needs a better start.
    """

    prices: DualPrices
    shares: FloatArray
    bound: float
    converged: bool


@dataclass(slots=True, eq=False)
class _CentralPath:
    """The current iterate, prices `y` (K,) and slacks `s` (K,), and the best bound with its prices, `best` (K,)."""

    y: FloatArray
    s: FloatArray
    best: FloatArray
    bound: float

    def record_bound(self, bound: float) -> None:
        """Keep the current prices if their bound is the best so far."""
        if bound > self.bound:
            self.best, self.bound = self.y.copy(), bound


def _maximize_smoothed(
    dual: SmoothedDual, path: _CentralPath, temperature: float, ceiling: float
) -> tuple[float, bool]:
    """Take Newton steps at one temperature, until the residual is small or the bound above `ceiling`. Moves `path`.

    Returns the objective of the soft choice at the last iterate, which is near the optimum of the relaxation, and
    whether the residual became small.
    """
    tolerance = 1e-3 * np.maximum(1.0, 1e-3 * np.abs(dual.limits))
    upper_limit = np.maximum(dual.upper_limit(path.y), 1.1 * path.y)

    def merit(y: FloatArray, value: float) -> float:
        return value + temperature * float(np.log(y).sum() + np.log1p(-y / upper_limit).sum())

    point, settled = dual.evaluate(path.y, temperature), False
    for _ in range(_MAX_NEWTON_STEPS):
        path.record_bound(point.bound)
        if path.bound > ceiling:
            return point.objective, False
        room = upper_limit - path.y
        gradient = point.activity + temperature / path.y - temperature / room - dual.limits
        matrix = point.hessian + np.diag(path.s / path.y + temperature / room / room)
        diagonal = np.diag_indices_from(matrix)
        matrix[diagonal] += (
            1e-12 * matrix[diagonal].max() + 1e-300
        )  # keeps the matrix regular when two limits say the same
        change = np.linalg.solve(matrix, gradient)
        slack_change = temperature / path.y - path.s - path.s / path.y * change
        boundary_ratio = max(
            float((-change / path.y).max()),
            float((change / room).max()),
            float((change / path.y).max()) / _MAX_GROWTH,
            float((-slack_change / path.s).max()),
            1e-12,
        )
        step = min(1.0, _STEP_TO_BOUNDARY / boundary_ratio)
        before, slope = merit(path.y, point.value), float(gradient @ change)
        for _ in range(_MAX_BACKTRACKS):
            y = path.y + step * change
            trial = dual.evaluate(y, temperature)
            if merit(y, trial.value) >= before + 1e-4 * step * slope - 1e-12 * abs(before):
                break
            step *= 0.4
        if not np.isfinite(trial.value):
            return point.objective, False
        path.y, path.s, point = y, np.maximum(path.s + step * slack_change, 1e-9 * temperature / y), trial
        residual = np.abs(point.activity + path.s - dual.limits - temperature / (upper_limit - y))
        small = bool((residual <= tolerance).all()) and float(y @ residual) <= temperature * len(y)
        if settled := step == 1.0 and small:
            break
    path.record_bound(point.bound)
    path.s = temperature / path.y
    return point.objective, settled


def temperature_unit(program: LinearProgram) -> float:
    """Return the unit of temperature: a typical difference of objective between two models of one request."""
    if program.allowed is None:
        spread = np.ptp(program.objective, axis=0)
    else:
        allowed = program.allowed
        spread = np.where(allowed, program.objective, -np.inf).max(axis=0)
        spread -= np.where(allowed, program.objective, np.inf).min(axis=0)
        spread = spread[spread > 0]
    if not len(spread):
        return 1e-12
    return max(float(np.median(spread)), 1e-3 * float(spread.mean()), 1e-12)


@dataclass(frozen=True, slots=True)
class DualScale:
    """What the numbers of a program are measured by.

    `unit` is a typical difference of objective between two models of one request, and the unit of temperature. `size`
    is the mean absolute objective times the requests. `worst_objective` is at least that of every assignment.
    """

    unit: float
    size: float
    worst_objective: float

    @classmethod
    def of(cls, program: LinearProgram) -> DualScale:
        """Measure a program."""
        size = max(float(np.abs(program.objective).mean()) * program.requests, 1e-300)
        return cls(temperature_unit(program), size, float(program.objective.max(axis=0).sum()))


@dataclass(frozen=True, slots=True, eq=False)
class PathEnd:
    """Where the central path ended: the prices of the best bound, and the last point `y` (K,) at its temperature."""

    prices: DualPrices
    bound: float
    y: FloatArray
    temperature: float
    converged: bool


def follow_central_path(
    dual: SmoothedDual,
    scale: DualScale,
    accuracy: float,
    start_at: DualPrices | None = None,
    *,
    warm: bool = False,
    patience: int = 1,
) -> PathEnd:
    """Maximise a smoothed dual function with at least one limit, to a relative `accuracy`.

    `warm` says that `start_at` is near the optimum, so that the path starts cool. `patience` is at how many
    temperatures Newton's method may fail.
    """
    temperature = WARM_START * scale.unit if warm else scale.unit
    start = np.full(len(dual.limits), 0.1 * scale.unit)
    if start_at is not None:
        head = [start_at.side] if dual.has_side else []
        start = np.maximum(np.concatenate([head, start_at.counts]), 1e-6 * scale.unit)
        if dual.has_side:
            start[0] = min(start[0], 0.5 * dual.upper_limit(start)[0])
        start = np.minimum(start, 0.5 * dual.upper_limit(start))
    path = _CentralPath(start, temperature / start, start, -np.inf)
    ceiling = scale.worst_objective + 1e-6 * scale.size  # a bound above every assignment proves infeasibility
    while True:
        objective, settled = _maximize_smoothed(dual, path, temperature, ceiling)
        patience -= not settled
        possible = bool(np.isfinite(path.bound)) and path.bound <= ceiling
        near = possible and abs(objective - path.bound) <= accuracy * max(abs(path.bound), 1e-3 * scale.size)
        if near or not possible or patience <= 0 or temperature <= 1e-8 * scale.unit:
            break
        temperature *= _COOLING
    prices = DualPrices(float(path.best[0]), path.best[1:]) if dual.has_side else DualPrices(0.0, path.best)
    return PathEnd(prices, path.bound, path.y, temperature, near)


def relax(program: LinearProgram, accuracy: float, start_at: DualPrices | None = None) -> Relaxation:
    """Return prices whose bound is within about `accuracy` (relative) of the best Lagrangian bound.

    Without `start_at`, a sample gives the starting point if there are more than a few thousand requests.
    """
    dual = ProgramDual(program)
    scale = DualScale.of(program)
    if len(dual.limits) == 0:
        zero = program.zero_prices()
        return Relaxation(zero, dual.shares(np.zeros(0), 1e-9 * scale.unit), program.lagrangian_bound(zero), True)
    patience, warm = 1 if start_at is None else MAX_UNSETTLED, False
    stride = program.requests // SAMPLE_REQUESTS
    if start_at is None and stride >= 2:
        first = relax(_subsample(program, stride), 1e-3)
        if first.converged:
            start_at, warm = first.prices, True
    end = follow_central_path(dual, scale, accuracy, start_at, warm=warm, patience=patience)
    return Relaxation(end.prices, dual.shares(end.y, end.temperature), end.bound, end.converged)


def _subsample(program: LinearProgram, stride: int) -> LinearProgram:
    """Return every stride-th request, with limits in proportion. The canonical order is random, so this is a sample."""
    objective = np.ascontiguousarray(program.objective[:, ::stride])
    share = objective.shape[1] / program.requests
    return LinearProgram(
        objective,
        None if program.side is None else np.ascontiguousarray(program.side[:, ::stride]),
        program.side_limit * share,
        None if program.allowed is None else np.ascontiguousarray(program.allowed[:, ::stride]),
        program.count_rows,
        program.count_limits * share,
    )
