"""Caps, exactly: cheapest exchanges found as shortest paths in a graph with one node per model.

A request that goes to j could go to k instead; of all of them the cheapest gives the weight of the edge j -> k. A path
j -> ... -> k moves one unit of load from j to k and leaves the loads between unchanged. This is the residual network of
the min-cost flow with the requests contracted: M nodes instead of R + M, in plain floating point numbers. Starting near
the optimum (from good prices) only few paths are needed. Without group shares the result is a proved optimum: no
cheaper path and no negative cycle remains (Ahuja, Magnanti and Orlin, "Network Flows", 1993, theorem 9.1).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.optimizer.dual_newton import relax
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

_STEPS_PER_REQUEST = 4


class ModelGraph:
    """The cheapest single moves between models under an assignment that it changes.

    values (M, R): what a request costs at a model, infinite where not allowed. choice (R,) is copied. Weights below
    `least_weight` count as that.
    """

    def __init__(self, values: FloatArray, choice: IntArray, least_weight: float = -np.inf) -> None:
        self.values = values
        self.least_weight = least_weight
        self.choice = choice.copy()
        models = len(values)
        self.weights = np.full((models, models), np.inf)
        self.movers = np.zeros((models, models), dtype=np.int64)
        for model in range(models):
            self._refresh(model)

    def _refresh(self, model: int) -> None:
        rows = np.flatnonzero(self.choice == model)
        if len(rows) == 0:
            self.weights[model] = np.inf
        else:
            extra = self.values[:, rows] - self.values[model, rows]
            best = extra.argmin(axis=1)
            self.weights[model] = np.maximum(extra[np.arange(len(extra)), best], self.least_weight)
            self.movers[model] = rows[best]
        self.weights[model, model] = 0.0

    def shortest(self) -> tuple[FloatArray, IntArray]:
        """(M, M) least cost of moving one unit from j to k, and the first stop after j on the way (Floyd, Warshall)."""
        distance = self.weights.copy()
        models = len(distance)
        stop = np.tile(np.arange(models), (models, 1))
        for via in range(models):
            through = distance[:, via, None] + distance[None, via, :]
            better = through < distance - 1e-15
            distance = np.where(better, through, distance)
            stop = np.where(better, stop[:, via, None], stop)
        return distance, stop

    def follow(self, path: list[int]) -> None:
        """Move one request along every edge of the path."""
        for here, there in pairwise(path):
            self.choice[self.movers[here, there]] = there
        for model in set(path):
            self._refresh(model)

    def cancel_cycles(self, limit: int) -> None:
        """Make exchanges among requests that leave all loads as they are, while they save anything."""
        for _ in range(limit):
            cycle = _negative_cycle(self.weights)
            if cycle is None:
                return
            self.follow(cycle)


def _negative_cycle(weights: FloatArray) -> list[int] | None:
    """A closed path of negative weight, or None (Bellman, Ford; from a virtual node at distance 0 to all)."""
    models = len(weights)
    scale = float(np.abs(weights[np.isfinite(weights)]).max(initial=0.0))
    distance, previous = np.zeros(models), np.full(models, -1)
    changed = -1
    for _ in range(models):
        through = distance[:, None] + weights
        origin = through.argmin(axis=0)
        least = through[origin, np.arange(models)]
        better = least < distance - 1e-12 * scale
        if not better.any():
            return None
        distance = np.where(better, least, distance)
        previous = np.where(better, origin, previous)
        changed = int(np.flatnonzero(better)[0])
    node = changed
    for _ in range(models):
        node = int(previous[node])
    cycle = [node]
    while True:
        node = int(previous[node])
        cycle.append(node)
        if node == cycle[0]:
            break
    cycle.reverse()
    if sum(weights[a, b] for a, b in pairwise(cycle)) >= 0:
        return None
    return cycle


def _walk(stop: IntArray, here: int, there: int) -> list[int]:
    path = [here]
    while path[-1] != there:
        path.append(int(stop[path[-1], there]))
        if len(path) > len(stop) + 1:
            return [here, there]
    return path


def place_requests(program: LinearProgram, values: FloatArray, choice: IntArray) -> IntArray:
    """The assignment of least total value within the count limits, starting from any (R,).

    values (M, R): what each request costs at each model, infinite where not allowed. A unit above a limit moves along
    the cheapest path; then every path that saves anything is taken. What remains over the limits cannot be placed:
    without group shares the result is exact, and passes them by the least possible number of requests.
    """
    graph = ModelGraph(values, choice)
    limit = _STEPS_PER_REQUEST * program.requests + 100
    graph.cancel_cycles(limit)
    _push_excess(program, graph, limit)
    scale = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    loads = program.loads(graph.choice)
    for _ in range(limit):
        distance, stop = graph.shortest()
        excess, change = _excess(program, loads)
        saving = np.where((change <= 0) & (loads > 0)[:, None] & ~np.eye(len(loads), dtype=np.bool_), distance, np.inf)
        here, there = (int(index) for index in np.unravel_index(int(saving.argmin()), saving.shape))
        if excess > 0 or saving[here, there] >= -1e-12 * scale:
            break
        graph.follow(_walk(stop, here, there))
        loads[here] -= 1
        loads[there] += 1
    return graph.choice


def settle_excess(program: LinearProgram, values: FloatArray, choice: IntArray) -> IntArray:
    """The assignment brought within the count limits with the least regret, and otherwise left as it is.

    values (M, R) at good prices: a mix of requests that cost the same (which a floor or a budget asked for) survives.
    """
    graph = ModelGraph(values, choice, least_weight=0.0)
    _push_excess(program, graph, _STEPS_PER_REQUEST * program.requests + 100)
    return graph.choice


def _excess(program: LinearProgram, loads: FloatArray) -> tuple[float, FloatArray]:
    """By how much the limits are passed, and (M, M) how one unit moved from j to k would change that."""
    over = program.count_rows @ loads - program.count_limits
    passed = float(np.maximum(over, 0.0).sum())
    unit = program.count_rows[:, None, :] - program.count_rows[:, :, None]
    return passed, np.maximum(over[:, None, None] + unit, 0.0).sum(axis=0) - passed


def _push_excess(program: LinearProgram, graph: ModelGraph, limit: int) -> None:
    """Move units above the limits along the cheapest paths while any path lessens the excess. Changes the graph."""
    loads = program.loads(graph.choice)
    for _ in range(limit):
        excess, change = _excess(program, loads)
        if excess <= 0:
            return
        distance, stop = graph.shortest()
        usable = np.isfinite(distance) & (loads > 0)[:, None] & (change < 0)
        cost = np.where(usable, distance / np.where(usable, -change, 1.0), np.inf)
        if not usable.any():
            return
        here, there = (int(index) for index in np.unravel_index(int(cost.argmin()), cost.shape))
        graph.follow(_walk(stop, here, there))
        loads[here] -= 1
        loads[there] += 1


def rounded_shares(shares: FloatArray) -> IntArray:
    """(R,): clear shares (M, R) as they are, the others spread evenly by a low-discrepancy sequence."""
    choice: IntArray = shares.argmax(axis=0)
    unclear = np.flatnonzero(shares[choice, np.arange(shares.shape[1])] < 0.99)
    if len(unclear):
        heights = np.cumsum(shares[:, unclear], axis=0)
        levels = (np.arange(len(unclear)) * 0.6180339887498949 + 0.5) % 1.0
        choice[unclear] = np.minimum((heights <= levels * heights[-1]).sum(axis=0), len(shares) - 1)
    return choice


def solve_transport(program: LinearProgram, accuracy: float = 1e-4) -> tuple[IntArray, float]:
    """The least objective under count limits and eligibility alone, and a bound on it.

    Exact without group shares. The assignment passes the limits where they cannot be kept; ask `count_slack`.
    """
    plain = program if program.side is None else program.without_side()
    relaxation = relax(plain, accuracy)
    values = plain.lagrangian_costs(plain.zero_prices())
    if not len(plain.count_limits):
        return values.argmin(axis=0), relaxation.bound
    return place_requests(plain, values, rounded_shares(relaxation.shares)), relaxation.bound


def optimal_cap_prices(program: LinearProgram, choice: IntArray) -> DualPrices:
    """Prices of caps that prove a least-objective assignment (R,): what the best way out of each full model costs.

    Shortest distances to a node that all free slots reach are feasible potentials of the residual network; where no way
    leads to a free slot any large price proves as much. Without group shares only.
    """
    if not len(program.count_limits):
        return program.zero_prices()
    distance, _ = ModelGraph(program.lagrangian_costs(program.zero_prices()), choice).shortest()
    caps = program.count_rows.argmax(axis=1)
    free = np.ones(program.models, dtype=np.bool_)
    free[caps] = program.count_slack(choice) > 0
    large = (program.models + 1) * float(np.abs(distance[np.isfinite(distance)]).max(initial=0.0))
    price: FloatArray = (distance + np.where(free, 0.0, large)[None, :]).min(axis=1)
    price = np.maximum(price if free.any() else price - price.min(), 0.0)
    return DualPrices(0.0, price[caps])
