"""Assign requests under caps alone, as a min-cost flow.

OR-Tools solves a whole problem exactly: `solve_transport`. Where an assignment exists already and few requests have to
move, augmenting paths in its residual graph are faster. The requests are contracted there: a node is a model, and the
edge j -> k is the cheapest request that goes to j and could go to k instead (Ahuja, Magnanti and Orlin, "Network
Flows", 1993, chapter 9).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.optimizer.dual_newton import relax
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram, duplicate_classes

_COST_BITS = 60  # OR-Tools multiplies costs by the number of nodes: the product has to fit into 64 bits
_DIRECT_PAIRS = 50_000  # (request, model) pairs from which prices pay: they leave a far smaller flow


def solve_transport(program: LinearProgram, must_fill: BoolArray | None = None) -> IntArray:
    """Return the assignment (R,) of least objective under caps and eligibility, by OR-Tools' `SimpleMinCostFlow`.

    The caps must have room for all requests, see `check_capacity`. All slots of the models `must_fill` (M,) are used,
    which must be possible. Equal requests are one node. Costs are rounded to integers: see `transport_rounding`.
    """
    requests, models = program.requests, program.models
    if not len(program.count_limits):
        choice: IntArray = program.lagrangian_costs(program.zero_prices()).argmin(axis=0)
        return choice
    first, sizes = _distinct_requests(program)
    if must_fill is None and len(first) * models > _DIRECT_PAIRS:
        program = _without_hopeless_options(program)
        first, sizes = _distinct_requests(program)
    from ortools.graph.python import min_cost_flow

    distinct = len(first)
    allowed = np.ones((models, distinct), dtype=np.bool_) if program.allowed is None else program.allowed[:, first]
    request, model = np.nonzero(allowed.T)
    objective = program.objective[:, first]
    cost = (objective - np.where(allowed, objective, np.inf).min(axis=0))[model, request]
    sink, unit = distinct + models, _cost_unit(program)
    fill = np.zeros(models, dtype=np.int64) if must_fill is None else must_fill.astype(np.int64)
    reward = (models + 1) * round(_largest_difference(program) / unit)  # more than any chain of exchanges costs
    flow = min_cost_flow.SimpleMinCostFlow()
    arcs = flow.add_arcs_with_capacity_and_unit_cost(
        request, distinct + model, sizes[request], np.rint(cost / unit).astype(np.int64)
    )
    flow.add_arcs_with_capacity_and_unit_cost(
        distinct + np.arange(models), np.full(models, sink), caps(program), -reward * fill
    )
    flow.set_nodes_supplies(np.arange(sink + 1), np.concatenate([sizes, np.zeros(models, dtype=np.int64), [-requests]]))
    status = flow.solve()
    assert status == flow.OPTIMAL, f"SimpleMinCostFlow ended with {status.name}"
    return np.repeat(model, flow.flows(arcs)).astype(np.int64)  # equal requests are neighbours


def transport_rounding(program: LinearProgram) -> float:
    """Return by how much the answer of `solve_transport` may exceed the least objective, from rounding costs."""
    return program.requests * _cost_unit(program) if len(program.count_limits) else 0.0


def _cost_unit(program: LinearProgram) -> float:
    """Return what one unit of the integer costs is worth. 10,000 requests: 2^-42 of the largest difference."""
    nodes, models = program.requests + program.models, program.models
    return _largest_difference(program) / 2.0 ** (_COST_BITS - nodes.bit_length() - (models + 1).bit_length())


def _largest_difference(program: LinearProgram) -> float:
    return float(np.ptp(program.objective, axis=0).max()) or 1.0


def _distinct_requests(program: LinearProgram) -> tuple[IntArray, IntArray]:
    """Return the first request of each run of equal requests (D,), and how many there are in each, (D,)."""
    every = [program.objective] if program.allowed is None else [program.objective, program.allowed]
    classes = None if program.duplicate_class is None else duplicate_classes(*every)
    if classes is None:
        return np.arange(program.requests), np.ones(program.requests, dtype=np.int64)
    _, first, sizes = np.unique(classes, return_index=True, return_counts=True)
    return first.astype(np.int64), sizes.astype(np.int64)


def _without_hopeless_options(program: LinearProgram) -> LinearProgram:
    """Return the program with the options only that reduced cost fixing leaves. A large flow is then a small one."""
    relaxation = relax(program, 1e-6)
    costs = program.lagrangian_costs(relaxation.prices)
    incumbent = repair_caps(program, costs, round_shares(relaxation.shares))
    return replace(program, allowed=program.open_options(relaxation.prices, incumbent))


def caps(program: LinearProgram) -> IntArray:
    """Return how many requests each model can take, (M,). The program has no group shares."""
    capacity = np.full(program.models, program.requests, dtype=np.int64)
    capacity[program.count_rows.argmax(axis=1)] = program.count_limits.astype(np.int64)
    return capacity


class ResidualGraph:
    """The cheapest moves between models under an assignment, which it changes.

    `costs` (M, R) is what a request costs at a model, infinite where not allowed. `choice` (R,) is copied. Weights
    below `least_weight` count as that.
    """

    def __init__(self, costs: FloatArray, choice: IntArray, least_weight: float = -np.inf) -> None:
        self.costs = costs
        self.least_weight = least_weight
        self.choice = choice.copy()
        models = len(costs)
        self.weights = np.full((models, models), np.inf)
        self.movers = np.zeros((models, models), dtype=np.int64)
        for model in range(models):
            self._update_edges(model)

    def _update_edges(self, model: int) -> None:
        rows = np.flatnonzero(self.choice == model)
        if len(rows) == 0:
            self.weights[model] = np.inf
        else:
            extra = self.costs[:, rows] - self.costs[model, rows]
            best = extra.argmin(axis=1)
            self.weights[model] = np.maximum(extra[np.arange(len(extra)), best], self.least_weight)
            self.movers[model] = rows[best]
        self.weights[model, model] = 0.0

    def shortest_paths(self) -> tuple[FloatArray, IntArray]:
        """Return the distances (M, M) and the next node on each path (M, M), by the Floyd-Warshall algorithm."""
        distance = self.weights.copy()
        models = len(distance)
        next_node = np.tile(np.arange(models), (models, 1))
        for via in range(models):
            through = distance[:, via, None] + distance[None, via, :]
            better = through < distance - 1e-15
            distance = np.where(better, through, distance)
            next_node = np.where(better, next_node[:, via, None], next_node)
        return distance, next_node

    def augment(self, path: list[int], most: int) -> int:
        """Move requests along every edge of a path, at most `most`, as long as none is dearer than the edge says.

        Returns how many were moved, at least 1. Requests that cost the same move together.
        """
        movers = [self._movers_of(origin, target, most) for origin, target in pairwise(path)]
        count = min(map(len, movers))
        for target, rows in zip(path[1:], movers, strict=True):
            self.choice[rows[:count]] = target
        for model in path:
            self._update_edges(model)
        return count

    def _movers_of(self, origin: int, target: int, most: int) -> IntArray:
        """Return the requests that go along an edge at its weight, the cheapest first, at most `most`."""
        if most == 1:
            return self.movers[origin, target, None]
        rows = np.flatnonzero(self.choice == origin)
        extra = self.costs[target, rows] - self.costs[origin, rows]
        least = self.weights[origin, target]
        cheap = np.flatnonzero(extra <= least + 1e-12 * abs(least))
        order = cheap[np.argsort(extra[cheap], kind="stable")[:most]]
        return np.asarray(rows[order])


def repair_caps(program: LinearProgram, costs: FloatArray, choice: IntArray) -> IntArray:
    """Return the assignment (R,) moved within the caps along the cheapest paths. The caps must have room.

    `costs` (M, R) are Lagrangian costs at good prices. Requests move only to lower an excess, so a mix of models that
    cost the same, which a floor or a budget asked for, survives.
    """
    graph = ResidualGraph(costs, choice, least_weight=0.0)
    capacity, loads = caps(program), program.loads(choice)
    while (loads > capacity).any():
        distance, next_node = graph.shortest_paths()
        usable = (loads > capacity)[:, None] & (loads < capacity)[None, :]
        cheapest = np.where(usable, distance, np.inf).argmin()
        origin, target = (int(index) for index in np.unravel_index(cheapest, distance.shape))
        path = [origin]
        while path[-1] != target:
            path.append(int(next_node[path[-1], target]))
        moved = graph.augment(path, int(min(loads[origin] - capacity[origin], capacity[target] - loads[target])))
        loads[origin] -= moved
        loads[target] += moved
    return graph.choice


def cap_prices(program: LinearProgram, choice: IntArray) -> DualPrices:
    """Return the shadow prices of the caps that prove a least-objective assignment (R,) optimal.

    The price of a full model is the shortest distance to a free slot: node potentials of the residual graph. Where no
    path leads to a free slot, any large price proves as much.
    """
    if not len(program.count_limits):
        return program.zero_prices()
    distance, _ = ResidualGraph(program.lagrangian_costs(program.zero_prices()), choice).shortest_paths()
    capped = program.count_rows.argmax(axis=1)
    free = np.ones(program.models, dtype=np.bool_)
    free[capped] = program.count_slack(choice) > 0
    large = (program.models + 1) * float(np.abs(distance[np.isfinite(distance)]).max(initial=0.0))
    price: FloatArray = (distance + np.where(free, 0.0, large)[None, :]).min(axis=1)
    price = np.maximum(price if free.any() else price - price.min(), 0.0)
    return DualPrices(0.0, price[capped])


def round_shares(shares: FloatArray) -> IntArray:
    """Return an assignment (R,) near fractional shares (M, R). Undecided requests follow a low-discrepancy sequence."""
    choice: IntArray = shares.argmax(axis=0)
    undecided = np.flatnonzero(shares[choice, np.arange(shares.shape[1])] < 0.99)
    if len(undecided):
        heights = np.cumsum(shares[:, undecided], axis=0)
        levels = (np.arange(len(undecided)) * 0.6180339887498949 + 0.5) % 1.0
        choice[undecided] = np.minimum((heights <= levels * heights[-1]).sum(axis=0), len(shares) - 1)
    return choice
