"""The prices: Newton's method on the smoothed Lagrangian dual, with the smoothing taken away step by step.

For prices y every request pays min_j v[j, i](y); the dual is the sum of these minima less limits @ y, and has as many
unknowns as there are coupling constraints (K caps and shares, and one floor or budget), however many requests there
are. The minimum is replaced by a soft minimum at temperature T (entropic smoothing: Nesterov, "Smooth minimization of
non-smooth functions", 2005; Cominetti and San Martin, 1994), y >= 0 is kept by a logarithmic barrier, and T falls along
a path. Each step solves a (K + 1) x (K + 1) system made in one pass over the requests, in chunks that fit the cache.
Many requests make the dual nearly smooth by themselves: the bound is off by O(T^2), so few temperatures are needed.

Correctness never rests on it: whatever prices come out, `LinearProgram.bound` makes a valid bound of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

_CHUNK_ENTRIES = 32_768  # numbers per temporary array: 256 KB, so that a chunk's few arrays stay in the cache
_COOLING = 0.1
_STEP_TO_BOUNDARY = 0.9
_NEWTON_STEPS = 12  # at most, at one temperature
_HALVINGS = 12  # of a step that does not climb
_SAMPLE_REQUESTS = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class _Evaluation:
    """The smoothed dual at one point: its value, left sides of the coupling rows (K,), their Jacobian (K, K), the bound
    (the dual without smoothing), and the objective of the soft choice."""

    value: float
    usage: FloatArray
    curvature: FloatArray
    bound: float
    objective: float


class _Dual:
    """The smoothed dual of a program. Row 0 of the coupling rows is the side constraint when there is one."""

    def __init__(self, program: LinearProgram) -> None:
        self.program = program
        self.side = program.side
        self.rows = program.count_rows
        head = [] if program.side is None else [program.side_limit]
        self.limits = np.concatenate([head, program.count_limits])
        self.spread = float(np.ptp(program.objective, axis=0).max())
        self.side_spread = 0.0 if program.side is None else float(np.ptp(program.side, axis=0).max())
        self.forbidden: BoolArray | None = None if program.allowed is None else ~program.allowed

    def ceiling(self, y: FloatArray) -> FloatArray:
        """(K,): more than a slot can be worth, the longest chain of exchanges that one more could save; none for row 0
        of a floor or budget. Keeps prices finite where a limit leaves no choice."""
        worth = self.spread if self.side is None else self.spread + float(y[0]) * self.side_spread
        most = np.full(len(y), (self.program.models + 1) * worth + 1e-6)
        if self.side is not None:
            most[0] = np.inf
        return most

    def chunks(self) -> Iterator[slice]:
        width = max(1, _CHUNK_ENTRIES // self.program.models)
        for start in range(0, self.program.requests, width):
            yield slice(start, min(start + width, self.program.requests))

    def values(self, y: FloatArray, part: slice) -> FloatArray:
        """(M, chunk): objective at the prices, infinite where not allowed."""
        program = self.program
        if program.side is None:
            value = program.objective[:, part] + (y @ self.rows)[:, None]
        else:
            value = y[0] * program.side[:, part]
            value += program.objective[:, part]
            value += (y[1:] @ self.rows)[:, None]
        if self.forbidden is not None:
            value[self.forbidden[:, part]] = np.inf
        return value

    def evaluate(self, y: FloatArray, temperature: float) -> _Evaluation:
        models = self.program.models
        loads, inner = np.zeros(models), np.zeros((models, models))
        cross, side_sum, corner, soft, hard, objective = np.zeros(models), 0.0, 0.0, 0.0, 0.0, 0.0
        for part in self.chunks():
            value = self.values(y, part)
            least = value.min(axis=0)
            value -= least
            value *= -1.0 / temperature
            share = np.exp(value, out=value)
            mass = share.sum(axis=0)
            share /= mass
            hard += float(least.sum())
            soft -= temperature * float(np.log(mass).sum())
            loads += share.sum(axis=1)
            objective += float(np.vdot(share, self.program.objective[:, part]))
            inner -= share @ share.T
            if self.side is not None:
                weighted = share * self.side[:, part]
                mean = weighted.sum(axis=0)
                by_model = weighted.sum(axis=1)
                cross += by_model - share @ mean
                side_sum += float(by_model.sum())
                corner += float(np.vdot(weighted, self.side[:, part]) - mean @ mean)
        inner[np.diag_indices(models)] += loads
        counts = self.rows @ inner @ self.rows.T
        if self.side is None:
            usage, curvature = self.rows @ loads, counts
        else:
            usage = np.concatenate([[side_sum], self.rows @ loads])
            mixed = self.rows @ cross
            curvature = np.block([[np.array([[corner]]), mixed[None, :]], [mixed[:, None], counts]])
        rest = float(y @ self.limits)
        return _Evaluation(hard + soft - rest, usage, curvature / temperature, hard - rest, objective)

    def shares(self, y: FloatArray, temperature: float) -> FloatArray:
        """(M, R): the soft choice of every request."""
        share = np.empty((self.program.models, self.program.requests))
        for part in self.chunks():
            value = self.values(y, part)
            value -= value.min(axis=0)
            value *= -1.0 / temperature
            np.exp(value, out=value)
            value /= value.sum(axis=0)
            share[:, part] = value
        return share


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """prices with the best bound found; shares (M, R): a fractional assignment near the optimum; bound; steps taken."""

    prices: DualPrices
    shares: FloatArray
    bound: float
    steps: int


@dataclass(slots=True, eq=False)
class _Path:
    """Where the ascent stands: prices y (K,), slacks s (K,), the best bound yet and its prices."""

    y: FloatArray
    s: FloatArray
    best: FloatArray
    bound: float
    steps: int = 0

    def keep(self, bound: float) -> None:
        """Remember the prices where they stand if their bound is the best yet."""
        if bound > self.bound:
            self.best, self.bound = self.y.copy(), bound


def _climb(dual: _Dual, path: _Path, temperature: float) -> float:
    """Newton steps at one temperature, until the coupling rows are met to within the smoothing. Moves `path`.

    Returns the objective of the soft choice where it ended: about the optimum of the relaxation.
    """
    tolerance = 1e-3 * np.maximum(1.0, 1e-3 * np.abs(dual.limits))
    ceiling = np.maximum(dual.ceiling(path.y), 1.1 * path.y)

    def merit(y: FloatArray, value: float) -> float:
        return value + temperature * float(np.log(y).sum() + np.log1p(-y / ceiling).sum())

    now = dual.evaluate(path.y, temperature)
    for _ in range(_NEWTON_STEPS):
        path.steps += 1
        path.keep(now.bound)
        room = ceiling - path.y
        gradient = now.usage + temperature / path.y - temperature / room - dual.limits
        matrix = now.curvature + np.diag(path.s / path.y + temperature / room**2)
        diagonal = np.diag_indices_from(matrix)
        matrix[diagonal] += (
            1e-12 * matrix[diagonal].max() + 1e-300
        )  # (limits that say the same twice: still one answer)
        change = np.linalg.solve(matrix, gradient)
        slack_change = temperature / path.y - path.s - path.s / path.y * change
        fall = max(
            float((-change / path.y).max()), float((change / room).max()), float((-slack_change / path.s).max()), 1e-12
        )
        step = min(1.0, _STEP_TO_BOUNDARY / fall)
        before, slope = merit(path.y, now.value), float(gradient @ change)
        for _ in range(_HALVINGS):
            y = path.y + step * change
            later = dual.evaluate(y, temperature)
            if merit(y, later.value) >= before + 1e-4 * step * slope - 1e-12 * abs(before):
                break
            step *= 0.4
        path.y, path.s, now = y, np.maximum(path.s + step * slack_change, 1e-9 * temperature / y), later
        missed = np.abs(now.usage + path.s - dual.limits - temperature / (ceiling - y))
        if step == 1.0 and bool((missed <= tolerance).all()):
            break
    path.keep(now.bound)
    path.s = temperature / path.y
    return now.objective


def _scale(program: LinearProgram) -> float:
    """A typical difference of objective between two models of one request: the unit of temperature."""
    spread = np.ptp(program.objective, axis=0)
    return max(float(np.median(spread)), 1e-3 * float(spread.mean()), 1e-12)


def relax(program: LinearProgram, accuracy: float) -> Relaxation:
    """Prices whose bound is within about `accuracy` (relative) of the best bound there is.

    More than a few thousand requests are first priced on a sample of them, which starts the whole near its end.
    """
    dual = _Dual(program)
    scale = _scale(program)
    stride = program.requests // _SAMPLE_REQUESTS
    if len(dual.limits) == 0:
        nothing = np.zeros(0)
        return Relaxation(
            program.no_prices(), dual.shares(nothing, 1e-9 * scale), program.bound(program.no_prices()), 0
        )
    temperature = scale
    start = np.full(len(dual.limits), 0.1 * scale)
    if stride >= 2:
        sample = _sampled(program, stride)
        first = relax(sample, 1e-3)
        head = [] if program.side is None else [first.prices.side]
        start = np.maximum(np.concatenate([head, first.prices.counts]), 1e-6 * scale)
        temperature = 0.05 * scale
    path = _Path(start, temperature / start, start, -np.inf)
    size = max(float(np.abs(program.objective).mean()) * program.requests, 1e-300)
    ceiling = float(program.objective.max(axis=0).sum())
    while True:
        objective = _climb(dual, path, temperature)
        near = objective - path.bound <= accuracy * max(abs(path.bound), 1e-3 * size)
        if near or temperature <= 1e-8 * scale or path.bound > ceiling + 1e-6 * size:
            break  # (a bound above every assignment's objective proves that there is no feasible one)
        temperature *= _COOLING
    shares = dual.shares(path.y, temperature)
    prices = DualPrices(0.0, path.best) if program.side is None else DualPrices(float(path.best[0]), path.best[1:])
    return Relaxation(prices, shares, path.bound, path.steps)


def _sampled(program: LinearProgram, stride: int) -> LinearProgram:
    """Every stride-th request (the canonical order is random), with limits shrunk in proportion."""
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
