"""What happens when a model joins the pool half way through a stream."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import IntArray
from eccos_core.errors import InputError, did_you_mean
from eccos_core.evaluation.online.stream import OnlineStream, PolicyFactory

WINDOW = 200  # requests whose share of the new model is looked at
FINAL = 1_000  # requests at the end of the stream that have the final share
ENOUGH = 0.95  # of the final share


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a policy took to a new model. final_share: of the last 1,000 requests, at most of half after its arrival.

    requests: how many came after the arrival, until 200 in a row had 95 % of the final share. None if they never did,
    or where the final share is 0. exploration_usd: what exploring cost more than the usual choice, from the arrival
    on. None for a policy that does not tell. spent_usd: in the same time.
    """

    final_share: float
    requests: int | None
    exploration_usd: float | None
    spent_usd: float


def replay_arrival(stream: OnlineStream, make: PolicyFactory, model: str, seed: int, at: int | None = None) -> Arrival:
    """Replay a random order without any outcome at the start. `model` may be chosen from request `at` on.

    at: half way where not given. Raises `InputError` for an unknown model, and for an `at` outside the stream.
    """
    models, count = stream.table.models, len(stream.table)
    if model not in models:
        raise InputError(f"unknown model {model!r}{did_you_mean(model, models)}; there are: {', '.join(models)}")
    start = count // 2 if at is None else at
    if not 0 < start < count:
        raise InputError(f"the new model comes at request {start}, must be above 0 and below the {count} questions")
    order, column = np.random.default_rng(seed).permutation(count), models.index(model)
    known = stream.known.copy()
    known[order[:start], column] = False
    hidden = replace(stream, known=known)
    policy, chosen, before = make(hidden, order[:0], seed), np.empty(count, dtype=np.int64), 0.0
    for step, row in enumerate(order.tolist()):
        if step == start:
            before = getattr(policy, "exploration_usd", 0.0)
        chosen[step] = policy.choose(row, known[row])
        policy.learn(row, int(chosen[step]))
    after = chosen[start:]
    explored = getattr(policy, "exploration_usd", None)
    spent = float(stream.cost_usd[order[start:], after].sum())
    share, requests = _taken(after == column)
    return Arrival(share, requests, None if explored is None else explored - before, spent)


def _taken(is_new: IntArray) -> tuple[float, int | None]:
    """Return the final share, and after how many requests it was nearly reached."""
    final = float(is_new[-min(FINAL, max(len(is_new) // 2, 1)) :].mean())
    width = min(WINDOW, len(is_new))
    sums = np.concatenate([[0], np.cumsum(is_new)])
    shares = (sums[width:] - sums[:-width]) / width
    reached = np.flatnonzero(shares >= ENOUGH * final)
    return final, int(reached[0]) + width if final > 0 and len(reached) else None
