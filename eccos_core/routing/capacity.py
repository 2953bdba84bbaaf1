"""How many requests of a batch each model can take, in waves of its free slots."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.routing.deployments import Deployments

MOST_UNIONS = 1024  # sets of models that are looked at to tell how many waves a batch needs


def batch_capacity(
    deployments: Deployments, caps: FloatArray, kinds: BoolArray, counts: IntArray, free_slots: IntArray
) -> IntArray:
    """Return (M,) how many of the batch each model can take: its free slots, times the waves that the batch needs.

    caps (M,): the slots of each model, infinite without a cap. kinds (P, M): the sets of models that requests may use,
    distinct. counts (P,): how many requests have each.

    A batch that fits into the free slots runs in one wave, and then these are the caps of the paper. A larger
    one takes as many waves as it must, each model its share of every wave. While others hold slots, a batch that
    does not fit now is planned on the full caps, because its calls wait in the queue anyway.
    """
    rows, kinds = int(counts.sum()), deployments.merge(kinds)
    free_slots = deployments.first(free_slots)
    free = np.minimum(free_slots, rows)
    if not _fits(kinds, counts, free):
        full = deployments.first(np.minimum(caps, rows).astype(np.int64))
        open_now = np.where(free_slots > 0, full, 0)  # a model whose breaker is open has none, and gets none
        free = open_now if (kinds & (open_now > 0)).any(axis=1).all() else full
    return deployments.spread(free * _waves(kinds, counts, free))


def _fits(kinds: BoolArray, counts: IntArray, free: IntArray) -> bool:
    """Whether the free slots can take the batch in one wave."""
    return bool((kinds & (free > 0)).any(axis=1).all()) and _waves(kinds, counts, free) == 1


def _waves(kinds: BoolArray, counts: IntArray, free: IntArray) -> int:
    """Fewest waves of free slots (M,) in which every request finds a model that it may go to.

    kinds (P, M) are what counts (P,) requests may use.

    Hall's condition: for every set of models, the requests that may go nowhere else must fit into its slots, wave by
    wave. The sets that matter are unions of what single requests may use.
    """
    unions = np.zeros((1, kinds.shape[1]), dtype=np.bool_)
    for kind in kinds:
        unions = np.unique(np.vstack([unions, unions | kind]), axis=0)
        if len(unions) > MOST_UNIONS:  # then the kinds alone and all models; a tighter union shows as a capacity error
            unions = np.vstack([kinds, kinds.any(axis=0)])
            break
    inside = (~kinds[None, :, :] | unions[:, None, :]).all(axis=2)  # (unions, kinds)
    demand, slots = inside @ counts, unions @ free
    return max(1, int(np.max(-(-demand[slots > 0] // slots[slots > 0]), initial=1)))
