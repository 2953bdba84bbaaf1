"""Improve an assignment by exchanges of one to three requests. They repair the floor or budget and use up its slack.

At good prices a handful of requests remain undecided: the core. Each round evaluates all single moves and pairs of
moves of least reduced cost at once, in numpy. It takes the best exchange that keeps all limits, until there is none. A
wide gap is worth trying triples too. A move whose reduced cost exceeds the remaining gap cannot help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.optimizer.linear_program import LinearProgram

_MOVES = 300  # single moves in one round: 45,000 pairs
_CORE = 600  # requests in the core
_MAX_DUPLICATES = 3  # requests of the core that have equal numbers and the same model
_ROUNDS = 300
_TRIPLE_MOVES, _TRIPLE_FIRST = 120, 60
_TRIPLE_GAP = 0.25  # of the mean objective of a request: a wider gap is worth trying triples


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """L candidate moves, in order of reduced cost.

    Each moves request `column` of the core from model `origin` to `target` and changes `objective` and the left-hand
    side of the side constraint, `side`. All are (L,). `arc` (L,) numbers the pair (origin, target), and `arc_rows`
    (K, arcs) is what a move along each arc adds to the count rows.
    """

    column: IntArray
    origin: IntArray
    target: IntArray
    objective: FloatArray
    side: FloatArray
    arc: IntArray
    arc_rows: FloatArray

    def first(self, count: int) -> _Moves:
        """Return the first `count` moves."""
        return _Moves(
            self.column[:count],
            self.origin[:count],
            self.target[:count],
            self.objective[:count],
            self.side[:count],
            self.arc[:count],
            self.arc_rows,
        )


class LocalSearch:
    """Improves `choice` (R,), an assignment that keeps the count limits.

    `values` (M, R) are Lagrangian costs at good prices, `bound` is the Lagrangian bound on the objective.
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
        """Return the requests that can move at the least reduced cost. Of equal requests at one model, only a few."""
        columns = np.arange(self.program.requests)
        reduced_cost = values - values[self.choice, columns]
        reduced_cost[self.choice, columns] = np.inf
        least_reduced_cost = reduced_cost.min(axis=0)
        if self.program.duplicate_class is not None:
            least_reduced_cost[
                _rank_in_class(self.program.duplicate_class * self.program.models + self.choice) >= _MAX_DUPLICATES
            ] = np.inf
        if len(columns) <= _CORE:
            return np.flatnonzero(np.isfinite(least_reduced_cost))
        core: IntArray = np.sort(np.argpartition(least_reduced_cost, _CORE)[:_CORE])
        movable: IntArray = core[np.isfinite(least_reduced_cost[core])]
        return movable

    def run(self, gap_tolerance: float) -> bool:
        """Search until nothing is better or the gap is at most `gap_tolerance` (objective units).

        Returns whether the assignment keeps the side constraint.
        """
        triple_gap = max(gap_tolerance, _TRIPLE_GAP * abs(self.bound) / self.program.requests)
        for _ in range(_ROUNDS):
            if self.slack >= 0 and self.objective - self.bound <= gap_tolerance:
                return True
            moves = self._moves()
            found = self._improvement(moves, triple_gap) if len(moves.column) else None
            if found is None:
                break
            self.choice[self.core[moves.column[found]]] = moves.target[found]
            self.objective = self.program.objective_of(self.choice)
            self.slack = self.program.side_slack(self.choice)
        return self.slack >= 0

    def _moves(self) -> _Moves:
        current = self.choice[self.core]
        columns = np.arange(len(self.core))
        reduced_cost = self.values - self.values[current, columns]
        reduced_cost[current, columns] = np.inf
        remaining_gap = self.objective - self.bound if self.slack >= 0 else math.inf
        flat = reduced_cost.ravel()
        usable = np.flatnonzero(flat <= remaining_gap if math.isfinite(remaining_gap) else np.isfinite(flat))
        if len(usable) > _MOVES:
            usable = usable[np.argpartition(flat[usable], _MOVES)[:_MOVES]]
        usable = usable[np.argsort(flat[usable], kind="stable")]
        target, column = np.divmod(usable, max(len(self.core), 1))
        origin = current[column]
        arcs, arc = np.unique(origin * self.program.models + target, return_inverse=True)
        rows, models = self.program.count_rows, self.program.models
        return _Moves(
            column,
            origin,
            target,
            self.core_objective[target, column] - self.core_objective[origin, column],
            self.core_side[target, column] - self.core_side[origin, column],
            arc,
            rows[:, arcs % models] - rows[:, arcs // models],
        )

    def _improvement(self, moves: _Moves, triple_gap: float) -> list[int] | None:
        """Return the best exchange of one, two or (above `triple_gap`) three moves that keeps all limits.

        It lowers the objective. If the side constraint is violated, it may raise it, and if no exchange repairs the
        violation, the one that reduces it most is returned.
        """
        count_slack = self.program.count_slack(self.choice)
        cutoff = -1e-12 * max(abs(self.objective), 1e-300)
        if self.slack < 0:
            found = _best_exchange(moves, count_slack, moves.objective, moves.side <= self.slack, math.inf, self.slack)
            return found[0] if found else self._reduce_violation(moves, count_slack)
        found = _best_exchange(moves, count_slack, moves.objective, moves.side <= self.slack, cutoff, self.slack)
        if found is None and self.objective - self.bound > triple_gap:
            found = self._best_triple(moves.first(_TRIPLE_MOVES), count_slack, cutoff)
        return found[0] if found else None

    def _reduce_violation(self, moves: _Moves, count_slack: FloatArray) -> list[int] | None:
        found = _best_exchange(moves, count_slack, moves.side, moves.side < 0, 0.0, math.inf)
        return found[0] if found else None

    def _best_triple(self, moves: _Moves, count_slack: FloatArray, cutoff: float) -> tuple[list[int], float] | None:
        best: tuple[list[int], float] | None = None
        for index in range(min(_TRIPLE_FIRST, len(moves.column))):
            other = moves.column != moves.column[index]
            found = _best_exchange(
                moves,
                count_slack - moves.arc_rows[:, moves.arc[index]],
                np.where(other, moves.objective, np.inf),
                np.zeros(len(other), dtype=np.bool_),
                cutoff - moves.objective[index],
                self.slack - moves.side[index],
            )
            if found:
                cutoff = found[1] + moves.objective[index]
                best = [index, *found[0]], cutoff
        return best


def _best_exchange(
    moves: _Moves, count_slack: FloatArray, cost: FloatArray, may_stand_alone: BoolArray, cutoff: float, slack: float
) -> tuple[list[int], float] | None:
    """Return the single move or pair of least `cost` (L,) and that cost, or None if none costs less than `cutoff`.

    It fits into `count_slack` (K,) and into `slack`, the slack of the side constraint. `may_stand_alone` (L,) says
    which moves may be taken alone.
    """
    arc_rows, arc = moves.arc_rows, moves.arc
    alone: BoolArray = np.all(arc_rows <= count_slack[:, None], axis=0)
    alone_cost = np.where(may_stand_alone & alone[arc], cost, np.inf)
    together: BoolArray = np.ones((arc_rows.shape[1], arc_rows.shape[1]), dtype=np.bool_)
    for row, left in zip(arc_rows, count_slack, strict=True):
        together &= row[:, None] + row[None, :] <= left
    pair_cost = cost[:, None] + cost[None, :]
    usable = (moves.side[:, None] + moves.side[None, :] <= slack) & (moves.column[:, None] != moves.column[None, :])
    if not together.all():
        usable &= together[arc][:, arc]
    pair_cost[~usable] = np.inf
    first, second = divmod(int(pair_cost.argmin()), len(cost))
    one = int(alone_cost.argmin())
    if min(alone_cost[one], pair_cost[first, second]) >= cutoff:
        return None
    if alone_cost[one] <= pair_cost[first, second]:
        return [one], float(alone_cost[one])
    return [first, second], float(pair_cost[first, second])


def _rank_in_class(keys: IntArray) -> IntArray:
    """Return for every key (R,) how many earlier entries have the same key."""
    order = np.argsort(keys, kind="stable")
    places = np.arange(len(keys))
    starts = np.concatenate([[True], np.diff(keys[order]) != 0])
    rank = np.empty(len(keys), dtype=np.int64)
    rank[order] = places - np.maximum.accumulate(np.where(starts, places, 0))
    return rank
