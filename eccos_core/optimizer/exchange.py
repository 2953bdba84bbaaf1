"""Exact to the last request: exchanges of one or two requests that repair the floor or budget and spend what is left.

Good prices leave a handful of requests undecided. For an assignment within the count limits every single move and every
pair of moves among the least costly ones is looked at (all at once, in numpy), and the best that keeps all limits is
taken, until none is better. A move is worth looking at only if its reduced cost is below the remaining gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.optimizer.program import Program

_MOVES = 600  # single moves looked at together: 180,000 pairs
_ROUNDS = 200


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """L candidate moves: request, from, to (L,); change of objective and of the side constraint's left side (L,)."""

    request: IntArray
    origin: IntArray
    target: IntArray
    objective: FloatArray
    side: FloatArray


class Exchange:
    """An assignment within its count limits, and the search for a better one.

    values (M, R) at good prices, bound: the Lagrangian bound on the objective. `choice` changes in place.
    """

    def __init__(self, program: Program, values: FloatArray, bound: float, choice: IntArray) -> None:
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
        """The requests with the least regret for any other model: only these are looked at."""
        requests = self.program.requests
        wanted = 2 * _MOVES
        if requests * self.program.models <= wanted:
            return np.arange(requests)
        own = values[self.choice, np.arange(requests)]
        regret = values - own
        regret[self.choice, np.arange(requests)] = np.inf
        nearest = regret.min(axis=0)
        if requests <= wanted:
            return np.arange(requests)
        return np.sort(np.argpartition(nearest, wanted)[:wanted])

    def run(self, good_enough: float) -> bool:
        """Search until nothing is better or the gap is `good_enough` (objective units). True if feasible at the end."""
        for _ in range(_ROUNDS):
            if self.slack >= 0 and self.objective - self.bound <= good_enough:
                return True
            if not self._improve():
                break
        return self.slack >= 0

    def _moves(self) -> _Moves:
        here = self.choice[self.core]
        columns = np.arange(len(self.core))
        regret = self.values - self.values[here, columns]
        regret[here, columns] = np.inf
        ceiling = self.objective - self.bound if self.slack >= 0 else math.inf
        flat = regret.ravel()
        usable = np.flatnonzero(flat <= ceiling if math.isfinite(ceiling) else np.isfinite(flat))
        if len(usable) > _MOVES:
            usable = np.sort(usable[np.argpartition(flat[usable], _MOVES)[:_MOVES]])
        target, column = np.divmod(usable, len(self.core))
        origin = here[column]
        return _Moves(
            column,
            origin,
            target,
            self.core_objective[target, column] - self.core_objective[origin, column],
            self.core_side[target, column] - self.core_side[origin, column],
        )

    def _improve(self) -> bool:
        moves = self._moves()
        if len(moves.request) == 0:
            return False
        program = self.program
        room = program.count_slack(self.choice)
        models = program.models
        kinds, kind = np.unique(moves.origin * models + moves.target, return_inverse=True)
        unit = program.count_rows[:, kinds % models] - program.count_rows[:, kinds // models]  # (K, kinds)
        alone = (unit <= room[:, None]).all(axis=0)[kind]
        together: BoolArray = np.ones((len(kinds), len(kinds)), dtype=np.bool_)
        for row, left in zip(unit, room, strict=True):
            together = together & (row[:, None] + row[None, :] <= left)
        best = self._best(moves, alone, together[kind][:, kind])
        if best is None:
            return False
        for index in best:
            self.choice[self.core[moves.request[index]]] = moves.target[index]
        self.objective = program.objective_of(self.choice)
        self.slack = program.side_slack(self.choice)
        return True

    def _best(self, moves: _Moves, alone: BoolArray, together: BoolArray) -> tuple[int, ...] | None:
        """The best single move or pair: one that keeps the side limit at the least objective; where none does, the one
        that comes nearest to keeping it."""
        together &= moves.request[:, None] != moves.request[None, :]
        objective = moves.objective[:, None] + moves.objective[None, :]
        side = moves.side[:, None] + moves.side[None, :]
        repairing = self.slack < 0
        ceiling = math.inf if repairing else -1e-12 * max(abs(self.objective), 1e-300)
        single_cost = np.where(
            alone & (moves.side <= self.slack) & (moves.objective < ceiling), moves.objective, np.inf
        )
        pair_cost = np.where(together & (side <= self.slack) & (objective < ceiling), objective, np.inf)
        single, pair = int(single_cost.argmin()), int(pair_cost.argmin())
        if min(single_cost[single], pair_cost.flat[pair]) == np.inf:
            if not repairing:
                return None
            single_cost = np.where(alone & (moves.side < 0), moves.side, np.inf)
            pair_cost = np.where(together & (side < 0), side, np.inf)
            single, pair = int(single_cost.argmin()), int(pair_cost.argmin())
            if min(single_cost[single], pair_cost.flat[pair]) == np.inf:
                return None
        if single_cost[single] <= pair_cost.flat[pair]:
            return (single,)
        first, second = divmod(pair, len(moves.request))
        return first, second
