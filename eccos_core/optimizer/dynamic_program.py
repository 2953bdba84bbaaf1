"""Solve small batches almost exactly, by dynamic programming over what the Lagrangian bound leaves open.

The Lagrangian bound allows a request to be split between models. On a hundred requests the integrality gap is about
half a per cent. But the bound says where to look. At the prices every choice has a reduced cost, and an assignment
costs more than the bound by exactly

    sum of its reduced costs + price of the side constraint * its slack + prices of the counts * their slacks

where every term is >= 0: its excess. So a choice whose reduced cost alone exceeds the gap is in no better assignment,
and most requests have one choice left. The others, the core, form a multiple-choice knapsack with loads (Kellerer,
Pferschy and Pisinger, "Knapsack Problems", 2004, chapter 11). Dynamic programming runs over its requests: a state is
what the choices so far add to the side constraint and to each count. A dominated state is dropped (Nemhauser and
Ullmann, 1969), as is one that cannot end within the limits below the incumbent. If too many are left, those of the
greatest excess are pruned too. The least excess of a pruned state then limits the bound, so the returned
bound is always valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

_MAX_STATES = 300  # kept after each request: a step takes about 0.1 ms
_MIN_REQUESTS, _MAX_PAIRS = 30, 2_000  # requests, and (request, model) pairs
_KEY_BITS = 62  # the loads of a state are packed into one integer
_ROUNDING = 1e-11  # of the sum of objectives: a sum of floats may be off by this, so the bound is lowered by it


def is_worth_solving(program: LinearProgram) -> bool:
    """Return whether `improve` pays for a program of this size. Larger ones have small gaps anyway."""
    return program.side is not None and program.requests >= _MIN_REQUESTS and program.objective.size <= _MAX_PAIRS


def improve(
    program: LinearProgram, prices: DualPrices, choice: IntArray, states: int = _MAX_STATES
) -> tuple[IntArray, float]:
    """Return an assignment (R,) at least as good as the feasible `choice` (R,), and a bound on the objective.

    The bound is at least `program.lagrangian_bound(prices)`. The program has a side constraint. `states` are kept
    after each request.
    """
    assert program.side is not None, "without floor or budget the caps alone are solved exactly"
    values = program.lagrangian_costs(prices)
    lagrangian, best = program.lagrangian_bound(prices, values), program.objective_of(choice)
    columns = np.arange(program.requests)
    base: IntArray = values.argmin(axis=0)
    reduced_cost = values - values[base, columns]
    usable = reduced_cost < best - lagrangian
    usable[base, columns] = False
    least = np.where(usable, reduced_cost, np.inf).min(axis=0)
    core = np.flatnonzero(np.isfinite(least))
    core = core[np.argsort(-least[core], kind="stable")]  # the cheapest branches come last
    options = [np.concatenate([[base[i]], np.flatnonzero(usable[:, i])]) for i in core]
    rows = program.count_rows
    if len(rows) * np.log2(2 * len(core) + 3) > _KEY_BITS:
        return choice, lagrangian
    largest_side = max(1.0, abs(program.side_limit))
    size = float(np.abs(program.objective[choice, columns]).sum()) + prices.side * largest_side
    side_slack = program.side_limit - float(program.side[base, columns].sum())
    search = _LabelSetting(
        reduced_cost=[reduced_cost[models, i] for models, i in zip(options, core, strict=True)],
        side=[program.side[models, i] - program.side[base[i], i] for models, i in zip(options, core, strict=True)],
        counts=[(rows[:, models] - rows[:, [base[i]]]).T for models, i in zip(options, core, strict=True)],
        prices=prices,
        side_slack=side_slack + _ROUNDING * largest_side,
        count_slack=program.count_slack(base) + 0.5,  # (loads are whole numbers)
        remaining_gap=best - lagrangian,
        states=states,
    )
    chosen_options, excess = search.run()
    bound = max(lagrangian, min(best, lagrangian + excess) - _ROUNDING * size)
    if chosen_options is None:
        return choice, bound
    solution = base.copy()
    solution[core] = [models[index] for models, index in zip(options, chosen_options, strict=True)]
    return (solution if program.is_feasible(solution) and program.objective_of(solution) < best else choice), bound


@dataclass(frozen=True, slots=True, eq=False)
class _LabelSetting:
    """F core requests. The i-th has m_i options, and the prices choose its first.

    `reduced_cost`, `side` (m_i,) and `counts` (m_i, K) are what each option adds. Their sums stay within `side_slack`
    and `count_slack` (K,). The search looks for assignments whose excess is less than `remaining_gap`.
    """

    reduced_cost: list[FloatArray]
    side: list[FloatArray]
    counts: list[FloatArray]
    prices: DualPrices
    side_slack: float
    count_slack: FloatArray
    remaining_gap: float
    states: int

    def run(self) -> tuple[list[int] | None, float]:
        """Return the option of every core request (None if none was found) and a lower bound on every excess."""
        limits = len(self.count_slack)
        side_low, side_high = (_suffix_sums([getattr(x, kind)() for x in self.side]) for kind in ("min", "max"))
        low, high = (
            _suffix_sums([getattr(x, kind)(axis=0) for x in self.counts], (limits,)) for kind in ("min", "max")
        )
        if side_low[0] > self.side_slack or (low[0] > self.count_slack).any():
            return None, self.remaining_gap
        radix = (2 * len(self.side) + 3) ** np.arange(limits, dtype=np.int64)
        side, reduced_cost, counts = np.zeros(1), np.zeros(1), np.zeros((1, limits))
        least_excess, steps = self.remaining_gap, []
        for index in range(len(self.side)):
            before = len(side)
            side = (side[None, :] + self.side[index][:, None]).ravel()
            reduced_cost = (reduced_cost[None, :] + self.reduced_cost[index][:, None]).ravel()
            counts = (counts[None, :, :] + self.counts[index][:, None, :]).reshape(len(side), limits)
            after = index + 1
            excess = reduced_cost + self.prices.side * np.maximum(self.side_slack - side - side_high[after], 0.0)
            excess += np.maximum(self.count_slack - 0.5 - counts - high[after], 0.0) @ self.prices.counts
            within_limits = (side + side_low[after] <= self.side_slack) & (excess < self.remaining_gap)
            within_limits &= (counts + low[after] <= self.count_slack).all(axis=1)
            kept = np.flatnonzero(within_limits)
            kept = kept[_undominated(side[kept], reduced_cost[kept], counts[kept] @ radix, self.prices.side)]
            if len(kept) > self.states:
                order = np.argpartition(excess[kept], self.states)
                least_excess = min(least_excess, float(excess[kept[order[self.states :]]].min()))
                kept = kept[order[: self.states]]
            side, reduced_cost, counts = side[kept], reduced_cost[kept], counts[kept]
            steps.append((kept // max(before, 1), kept % max(before, 1)))
        if not len(side):
            return None, least_excess
        excess = reduced_cost + self.prices.side * (self.side_slack - side)
        excess += (self.count_slack - 0.5 - counts) @ self.prices.counts
        state = int(excess.argmin())
        least_excess = min(least_excess, float(excess[state]))
        chosen_options = []
        for option, parent in reversed(steps):
            chosen_options.append(int(option[state]))
            state = int(parent[state])
        return chosen_options[::-1], least_excess


def _suffix_sums(extremes: list[FloatArray], shape: tuple[int, ...] = ()) -> FloatArray:
    """Return (F + 1, ...): the sum of the extremes from each request on."""
    total = np.zeros((len(extremes) + 1, *shape))
    total[:-1] = np.cumsum(np.asarray(extremes).reshape(len(extremes), *shape)[::-1], axis=0)[::-1]
    return total


def _undominated(side: FloatArray, reduced_cost: FloatArray, key: FloatArray, price: float) -> IntArray:
    """Return the states that are Pareto optimal in side and in reduced_cost - price * side, among equal loads (key)."""
    order = np.lexsort((side, key))
    value = (reduced_cost - price * side)[order]
    if not len(value):
        return order
    group = np.cumsum(np.concatenate([[0], np.diff(key[order]) != 0]))
    value -= group * (np.ptp(value) + 1.0)  # each group lies below the one before it, so one running minimum serves all
    new: BoolArray = np.concatenate([[True], value[1:] < np.minimum.accumulate(value)[:-1]])
    kept: IntArray = order[new]
    return kept
