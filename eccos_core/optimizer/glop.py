"""Solve the linear relaxation by OR-Tools' simplex method, GLOP."""

from __future__ import annotations

from typing import Any

import numpy as np

from eccos_core.io.optional import needs_extra
from eccos_core.optimizer.dual_newton import Relaxation
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram


def simplex(program: LinearProgram) -> Relaxation | None:
    """Return the relaxation's optimum, None if GLOP finds no solution within its own tolerance."""
    from ortools.linear_solver.python import model_builder_helper

    with needs_extra("exact", "the simplex method"):
        from scipy import sparse

    models, requests, size = program.models, program.requests, program.objective.size
    column = np.arange(size)
    blocks = [sparse.csr_matrix((np.ones(size), (column % requests, column)), shape=(requests, size))]
    if program.side is not None:
        blocks.append(sparse.csr_matrix(program.side.reshape(1, -1)))
    if len(program.count_rows):
        blocks.append(sparse.csr_matrix(np.repeat(program.count_rows, requests, axis=1)))
    matrix = sparse.vstack(blocks, format="csr")
    coupled = matrix.shape[0] - requests
    limits = np.concatenate([[] if program.side is None else [program.side_limit], program.count_limits])
    upper = np.ones(size) if program.allowed is None else program.allowed.astype(np.float64).ravel()
    helper: Any = model_builder_helper.ModelBuilderHelper()  # (its stubs refuse plain numpy arrays)
    helper.fill_model_from_sparse_data(
        np.zeros(size),
        upper,
        program.objective.ravel(),
        np.concatenate([np.ones(requests), np.full(coupled, -np.inf)]),
        np.concatenate([np.ones(requests), limits]),
        matrix,
    )
    solver = model_builder_helper.ModelSolverHelper("GLOP")
    solver.solve(helper)
    if not solver.has_solution():
        return None
    dual = np.maximum(-np.asarray(solver.dual_values())[requests:], 0.0)
    prices = DualPrices(0.0, dual) if program.side is None else DualPrices(float(dual[0]), dual[1:])
    shares = np.asarray(solver.variable_values()).reshape(models, requests)
    return Relaxation(prices, shares, program.lagrangian_bound(prices), 0)
