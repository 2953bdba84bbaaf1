"""Exact to the last request: exchanges of a few requests that repair the floor or budget and spend what is left.

Good prices leave a handful of requests undecided. For an assignment within the count limits every single move and every
pair of moves among the least costly ones is looked at (all at once, in numpy), and the best that keeps all limits is
taken, until none is better; where the gap is still wide, triples of moves too. A move is worth looking at only if its
reduced cost is below the remaining gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.optimizer.linear_program import LinearProgram

_MOVES = 300  # single moves looked at together: 45,000 pairs
_CORE = 600  # requests whose moves are looked at
_ALIKE = 3  # of these that are equal in all numbers and at the same model
_ROUNDS = 300
_TRIPLE_MOVES, _TRIPLE_FIRST = 120, 60
_WIDE_GAP = 0.25  # of the mean objective of a request: beyond it triples are looked at


@dataclass(frozen=True, slots=True, eq=False)
class _SwapMoves:
    """L candidate moves, least regret first: column in the core, from, to (L,); change of objective and of the side
    constraint's left side (L,); kind (L,) of (from, to), and what each kind adds to the count rows, unit (K, kinds)."""

    column: IntArray
    origin: IntArray
    target: IntArray
    objective: FloatArray
    side: FloatArray
    kind: IntArray
    unit: FloatArray

    def first(self, many: int) -> _SwapMoves:
        """The first moves only."""
        return _SwapMoves(
            self.column[:many],
            self.origin[:many],
            self.target[:many],
            self.objective[:many],
            self.side[:many],
            self.kind[:many],
            self.unit,
        )


class LocalSearch:
    """An assignment within its count limits, and the search for a better one.

    values (M, R) at good prices, bound: the Lagrangian bound on the objective. `choice` changes in place.
    """

    def __init__(self, program: LinearProgram, values: FloatArray, bound: float, choice: IntArray) -> None:
        self.program = program
        self.choice = choice.copy()
        self.bound = bound
        self.objective = program.objective_of(self.choice)
        self.slack = program.side_slack(self.choice)
        self.core = self._core(values)
        self.values = values[:, self.core]
        self.core_objective = program.objective[:, self.core]
        self.core_side = np.zeros_like(self.core_objective) if program.side is None else program.side[:, self.core]

    def _core(self, values: FloatArray) -> IntArray:
        """The requests with the least regret for any other model; of equal requests at one model only a few."""
        columns = np.arange(self.program.requests)
        regret = values - values[self.choice, columns]
        regret[self.choice, columns] = np.inf
        nearest = regret.min(axis=0)
        if self.program.kinds is not None:
            nearest[_rank_among_equals(self.program.kinds * self.program.models + self.choice) >= _ALIKE] = np.inf
        if len(columns) <= _CORE:
            return np.flatnonzero(np.isfinite(nearest))
        core: IntArray = np.sort(np.argpartition(nearest, _CORE)[:_CORE])
        known: IntArray = core[np.isfinite(nearest[core])]
        return known

    def run(self, good_enough: float) -> bool:
        """Search until nothing is better or the gap is `good_enough` (objective units). True if feasible at the end."""
        wide = max(good_enough, _WIDE_GAP * abs(self.bound) / self.program.requests)
        for _ in range(_ROUNDS):
            if self.slack >= 0 and self.objective - self.bound <= good_enough:
                return True
            moves = self._moves()
            found = self._improvement(moves, wide) if len(moves.column) else None
            if found is None:
                break
            self.choice[self.core[moves.column[found]]] = moves.target[found]
            self.objective = self.program.objective_of(self.choice)
            self.slack = self.program.side_slack(self.choice)
        return self.slack >= 0

    def _moves(self) -> _SwapMoves:
        here = self.choice[self.core]
        columns = np.arange(len(self.core))
        regret = self.values - self.values[here, columns]
        regret[here, columns] = np.inf
        ceiling = self.objective - self.bound if self.slack >= 0 else math.inf
        flat = regret.ravel()
        usable = np.flatnonzero(flat <= ceiling if math.isfinite(ceiling) else np.isfinite(flat))
        if len(usable) > _MOVES:
            usable = usable[np.argpartition(flat[usable], _MOVES)[:_MOVES]]
        usable = usable[np.argsort(flat[usable], kind="stable")]
        target, column = np.divmod(usable, max(len(self.core), 1))
        origin = here[column]
        kinds, kind = np.unique(origin * self.program.models + target, return_inverse=True)
        rows, models = self.program.count_rows, self.program.models
        return _SwapMoves(
            column,
            origin,
            target,
            self.core_objective[target, column] - self.core_objective[origin, column],
            self.core_side[target, column] - self.core_side[origin, column],
            kind,
            rows[:, kinds % models] - rows[:, kinds // models],
        )

    def _improvement(self, moves: _SwapMoves, wide: float) -> list[int] | None:
        """The best one, two or (with a wide gap) three moves that keep all limits at a lower objective. Where the side
        limit is passed: at any objective; and if none keeps it, the moves that come nearest to doing so."""
        room = self.program.count_slack(self.choice)
        least = -1e-12 * max(abs(self.objective), 1e-300)
        if self.slack < 0:
            found = _best(moves, room, moves.objective, moves.side <= self.slack, math.inf, self.slack)
            return found[0] if found else self._towards_limit(moves, room)
        found = _best(moves, room, moves.objective, moves.side <= self.slack, least, self.slack)
        if found is None and self.objective - self.bound > wide:
            found = self._best_triple(moves.first(_TRIPLE_MOVES), room, least)
        return found[0] if found else None

    def _towards_limit(self, moves: _SwapMoves, room: FloatArray) -> list[int] | None:
        found = _best(moves, room, moves.side, moves.side < 0, 0.0, math.inf)
        return found[0] if found else None

    def _best_triple(self, moves: _SwapMoves, room: FloatArray, least: float) -> tuple[list[int], float] | None:
        best: tuple[list[int], float] | None = None
        for index in range(min(_TRIPLE_FIRST, len(moves.column))):
            other = moves.column != moves.column[index]
            found = _best(
                moves,
                room - moves.unit[:, moves.kind[index]],
                np.where(other, moves.objective, np.inf),
                np.zeros(len(other), dtype=np.bool_),
                least - moves.objective[index],
                self.slack - moves.side[index],
            )
            if found:
                least = found[1] + moves.objective[index]
                best = [index, *found[0]], least
        return best


def _best(
    moves: _SwapMoves, room: FloatArray, cost: FloatArray, single: BoolArray, below: float, slack: float
) -> tuple[list[int], float] | None:
    """The single move or pair of least cost (L,) below `below` within room (K,) and slack, and its cost; None if none.

    single (L,): the moves that may stand alone.
    """
    unit, kind = moves.unit, moves.kind
    alone: BoolArray = np.all(unit <= room[:, None], axis=0)
    alone_cost = np.where(single & alone[kind], cost, np.inf)
    together: BoolArray = np.ones((unit.shape[1], unit.shape[1]), dtype=np.bool_)
    for row, left in zip(unit, room, strict=True):
        together &= row[:, None] + row[None, :] <= left
    pair_cost = cost[:, None] + cost[None, :]
    usable = (moves.side[:, None] + moves.side[None, :] <= slack) & (moves.column[:, None] != moves.column[None, :])
    if not together.all():
        usable &= together[kind][:, kind]
    pair_cost[~usable] = np.inf
    first, second = divmod(int(pair_cost.argmin()), len(cost))
    one = int(alone_cost.argmin())
    if min(alone_cost[one], pair_cost[first, second]) >= below:
        return None
    if alone_cost[one] <= pair_cost[first, second]:
        return [one], float(alone_cost[one])
    return [first, second], float(pair_cost[first, second])


def _rank_among_equals(keys: IntArray) -> IntArray:
    """(R,): how many earlier entries have the same key."""
    order = np.argsort(keys, kind="stable")
    places = np.arange(len(keys))
    starts = np.concatenate([[True], np.diff(keys[order]) != 0])
    rank = np.empty(len(keys), dtype=np.int64)
    rank[order] = places - np.maximum.accumulate(np.where(starts, places, 0))
    return rank
