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

from eccos_core.domain import FloatArray, IntArray
from eccos_core.optimizer.dual_newton import relax
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

_COST_BITS = 60  # OR-Tools multiplies costs by the number of nodes: the product has to fit into 64 bits
_DIRECT_PAIRS = 50_000  # (request, model) pairs from which prices pay: they leave a far smaller flow


def solve_transport(program: LinearProgram) -> IntArray:
    """Return the assignment (R,) of least objective under caps and eligibility, by OR-Tools' `SimpleMinCostFlow`.

    The caps must have room for all requests, see `check_capacity`. Costs are rounded to integers. With 10,000 requests
    that is 2^-46 of the largest difference, for each request.
    """
    requests, models = program.requests, program.models
    if not len(program.count_limits):
        choice: IntArray = program.lagrangian_costs(program.zero_prices()).argmin(axis=0)
        return choice
    if program.objective.size > _DIRECT_PAIRS:
        program = _without_hopeless_options(program)
    from ortools.graph.python import min_cost_flow

    allowed = np.ones((models, requests), dtype=np.bool_) if program.allowed is None else program.allowed
    model, request = np.nonzero(allowed)
    cost = (program.objective - np.where(allowed, program.objective, np.inf).min(axis=0))[model, request]
    sink = requests + models
    largest = float(cost.max()) or 1.0
    bits = _COST_BITS - sink.bit_length()
    flow = min_cost_flow.SimpleMinCostFlow()
    arcs = flow.add_arcs_with_capacity_and_unit_cost(
        request, requests + model, np.ones_like(model), np.rint(cost / largest * 2.0**bits).astype(np.int64)
    )
    flow.add_arcs_with_capacity_and_unit_cost(
        requests + np.arange(models), np.full(models, sink), caps(program), np.zeros(models, dtype=np.int64)
    )
    flow.set_nodes_supplies(np.arange(sink + 1), np.repeat([1, 0, -requests], [requests, models, 1]))
    status = flow.solve()
    assert status == flow.OPTIMAL, f"SimpleMinCostFlow ended with {status.name}"
    used = flow.flows(arcs) > 0
    choice = np.empty(requests, dtype=np.int64)
    choice[request[used]] = model[used]
    return choice


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

    def augment(self, path: list[int]) -> None:
        """Move one request along every edge of the path."""
        for origin, target in pairwise(path):
            self.choice[self.movers[origin, target]] = target
        for model in set(path):
            self._update_edges(model)


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
        graph.augment(path)
        loads[origin] -= 1
        loads[target] += 1
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
