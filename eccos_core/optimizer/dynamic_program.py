"""Small batches, almost exactly: the assignments that could still be better than the best known, all at once.

A Lagrangian bound that prices the floor (or budget) and the caps cannot know that nobody can be cut in two: on a
hundred requests that is half a per cent, and as much may be left to gain. But it says where to look. At the prices
every choice has a regret, and an assignment costs more than the bound by exactly

    sum of its regrets + price of the side constraint * its slack + prices of the counts * their slacks

where every term is >= 0. So a choice whose regret alone exceeds what separates the best known from the bound is in no
better assignment, and of most requests one choice is left. The others make a small multiple-choice knapsack with loads
(Kellerer, Pferschy and Pisinger, "Knapsack Problems", 2004, chapter 11). It is solved by dynamic programming over the
requests: a state is what the choices so far add to the side constraint and to each count; one that another beats is
dropped (Nemhauser and Ullmann, 1969), as is one that cannot end within the limits below the best known. If too many
are left, those of the greatest excess go too, and the least excess among them limits the bound: what is
returned is proved in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

_STATES = 300  # kept after each request: a step then takes some 0.1 ms
_FEWEST, _PAIRS = 30, 2_000  # from so many requests up to so many (request, model) pairs it is worth it, in some ms
_KEY_BITS = 62  # the loads of a state are packed into one integer
_ROUNDING = 1e-11  # of the sum of objectives: the bound is lowered by what adding up floats may lose


def is_worth_solving(program: LinearProgram) -> bool:
    """Whether a program is of a size for `improve`. Larger ones have small gaps; tiny ones are left to prices that are
    complementary up to the gap."""
    return program.side is not None and program.requests >= _FEWEST and program.objective.size <= _PAIRS


def improve(
    program: LinearProgram, prices: DualPrices, choice: IntArray, states: int = _STATES
) -> tuple[IntArray, float]:
    """A feasible assignment (R,) at least as good as the feasible `choice` (R,), and a bound on every assignment's
    objective, at least `program.bound(prices)`. Needs a side constraint. states: how many are kept after each request.
    """
    assert program.side is not None, "without floor or budget the caps alone are solved exactly"
    values = program.values(prices)
    lagrangian, best = program.bound(prices, values), program.objective_of(choice)
    columns = np.arange(program.requests)
    base: IntArray = values.argmin(axis=0)
    regret = values - values[base, columns]
    usable = regret < best - lagrangian
    usable[base, columns] = False
    least = np.where(usable, regret, np.inf).min(axis=0)
    free = np.flatnonzero(np.isfinite(least))
    free = free[np.argsort(-least[free], kind="stable")]  # what branches at the least regret comes last
    options = [np.concatenate([[base[i]], np.flatnonzero(usable[:, i])]) for i in free]
    rows = program.count_rows
    if len(rows) * np.log2(2 * len(free) + 3) > _KEY_BITS:
        return choice, lagrangian
    largest_side = max(1.0, abs(program.side_limit))
    size = float(np.abs(program.objective[choice, columns]).sum()) + prices.side * largest_side
    side_room = program.side_limit - float(program.side[base, columns].sum())
    search = _Search(
        regret=[regret[models, i] for models, i in zip(options, free, strict=True)],
        side=[program.side[models, i] - program.side[base[i], i] for models, i in zip(options, free, strict=True)],
        counts=[(rows[:, models] - rows[:, [base[i]]]).T for models, i in zip(options, free, strict=True)],
        prices=prices,
        side_room=side_room + _ROUNDING * largest_side,
        count_room=program.count_slack(base) + 0.5,  # (loads are whole numbers)
        ceiling=best - lagrangian,
        states=states,
    )
    picked, excess = search.run()
    bound = max(lagrangian, min(best, lagrangian + excess) - _ROUNDING * size)
    if picked is None:
        return choice, bound
    found = base.copy()
    found[free] = [models[index] for models, index in zip(options, picked, strict=True)]
    return (found if program.feasible(found) and program.objective_of(found) < best else choice), bound


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """F free requests, the i-th with m_i options, the first of them the one that the prices choose.

    regret, side (m_i,), counts (m_i, K): what each option adds. side_room, count_room (K,): what all may add in sum.
    Searched are assignments whose excess over the Lagrangian bound is less than `ceiling`.
    """

    regret: list[FloatArray]
    side: list[FloatArray]
    counts: list[FloatArray]
    prices: DualPrices
    side_room: float
    count_room: FloatArray
    ceiling: float
    states: int

    def run(self) -> tuple[list[int] | None, float]:
        """(option of every free request or None where none was found, the least excess that any assignment has)."""
        limits = len(self.count_room)
        side_low, side_high = (_to_come([getattr(x, kind)() for x in self.side]) for kind in ("min", "max"))
        low, high = (_to_come([getattr(x, kind)(axis=0) for x in self.counts], (limits,)) for kind in ("min", "max"))
        if side_low[0] > self.side_room or (low[0] > self.count_room).any():
            return None, self.ceiling
        radix = (2 * len(self.side) + 3) ** np.arange(limits, dtype=np.int64)
        side, regret, counts = np.zeros(1), np.zeros(1), np.zeros((1, limits))
        proved, steps = self.ceiling, []
        for index in range(len(self.side)):
            before = len(side)
            side = (side[None, :] + self.side[index][:, None]).ravel()
            regret = (regret[None, :] + self.regret[index][:, None]).ravel()
            counts = (counts[None, :, :] + self.counts[index][:, None, :]).reshape(len(side), limits)
            after = index + 1
            excess = regret + self.prices.side * np.maximum(self.side_room - side - side_high[after], 0.0)
            excess += np.maximum(self.count_room - 0.5 - counts - high[after], 0.0) @ self.prices.counts
            alive = (side + side_low[after] <= self.side_room) & (excess < self.ceiling)
            alive &= (counts + low[after] <= self.count_room).all(axis=1)
            kept = np.flatnonzero(alive)
            kept = kept[_undominated(side[kept], regret[kept], counts[kept] @ radix, self.prices.side)]
            if len(kept) > self.states:
                order = np.argpartition(excess[kept], self.states)
                proved = min(proved, float(excess[kept[order[self.states :]]].min()))
                kept = kept[order[: self.states]]
            side, regret, counts = side[kept], regret[kept], counts[kept]
            steps.append((kept // max(before, 1), kept % max(before, 1)))
        if not len(side):
            return None, proved
        excess = regret + self.prices.side * (self.side_room - side)
        excess += (self.count_room - 0.5 - counts) @ self.prices.counts
        state = int(excess.argmin())
        proved = min(proved, float(excess[state]))
        picked = []
        for option, parent in reversed(steps):
            picked.append(int(option[state]))
            state = int(parent[state])
        return picked[::-1], proved


def _to_come(extremes: list[FloatArray], shape: tuple[int, ...] = ()) -> FloatArray:
    """(F + 1, ...): what the requests from each one on add at least (or at most)."""
    total = np.zeros((len(extremes) + 1, *shape))
    total[:-1] = np.cumsum(np.asarray(extremes).reshape(len(extremes), *shape)[::-1], axis=0)[::-1]
    return total


def _undominated(side: FloatArray, regret: FloatArray, key: FloatArray, price: float) -> IntArray:
    """The states that no other of the same loads (key) beats in side and in value (regret - price * side) alike."""
    order = np.lexsort((side, key))
    value = (regret - price * side)[order]
    if not len(value):
        return order
    group = np.cumsum(np.concatenate([[0], np.diff(key[order]) != 0]))
    value -= group * (np.ptp(value) + 1.0)  # every group lies below those before it: one running minimum serves all
    new: BoolArray = np.concatenate([[True], value[1:] < np.minimum.accumulate(value)[:-1]])
    kept: IntArray = order[new]
    return kept
