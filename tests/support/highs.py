"""The routing problem as HiGHS solves it, through scipy: a second opinion that shares no code with eccos."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import QualityFloor, RoutingProblem


def solve_with_highs(
    problem: RoutingProblem, *, whole: bool = True, time_limit_s: float = 120.0
) -> tuple[float, float]:
    """Return the least cost in USD under a quality floor, and its mean quality. NaN if HiGHS finds nothing in time.

    `whole` solves the integer program, to a relative gap of 1e-9. Else requests may be split between models.
    """
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    assert isinstance(problem.policy, QualityFloor)
    requests, models = problem.quality.shape
    loads = sparse.hstack([sparse.eye(models, format="csr")] * requests, format="csr")
    answer = milp(
        problem.cost_usd.ravel(),
        integrality=np.full(requests * models, int(whole)),
        bounds=Bounds(0, problem.eligible.ravel().astype(float)),
        constraints=[
            LinearConstraint(sparse.kron(sparse.eye(requests), np.ones((1, models)), format="csr"), 1, 1),
            LinearConstraint(loads, -np.inf, problem.capacity),
            LinearConstraint(problem.quality.reshape(1, -1), problem.policy.alpha * requests, np.inf),
        ],
        options={"time_limit": time_limit_s, "mip_rel_gap": 1e-9},
    )
    if answer.x is None:
        return float("nan"), float("nan")
    return float(answer.fun), float(answer.x @ problem.quality.ravel() / requests)
