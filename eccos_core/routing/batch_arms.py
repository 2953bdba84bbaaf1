"""Batch APIs of providers as models of a batch's problem: `large@batch`, with the quality of `large` at a discount."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from eccos_core.domain import (
    FORECAST_ARRAYS,
    BatchOffer,
    Forecast,
    GroupShare,
    IntArray,
    Request,
    RoutingProblem,
    batch_arm,
)
from eccos_core.routing.parts import Parts
from eccos_core.routing.prepared import PreparedBatch

_NEVER_IN_A_BATCH = frozenset({"stream", "extra_headers", "api_key", "api_base", "base_url", "timeout"})
_log = logging.getLogger("eccos.provider_batches")


def usable_offers(parts: Parts, patience_s: float) -> dict[str, BatchOffer]:
    """Return the batch APIs that answer within the patience, by model. A log line says why there are none."""
    provider = parts.provider_batches
    offers = {} if provider is None else {n: o for n, o in provider.offers.items() if n in parts.names}
    barred = None
    if not offers:
        barred = "no model has `batch` in its model_info"
    elif parts.certificate is not None:
        barred = "the certificate of the policy holds for calls at their usual price"
    elif parts.planner is not None:
        barred = "the policy escalates, which looks at answers as they come"
    elif not (patient := {name: offer for name, offer in offers.items() if offer.within_s <= patience_s}):
        least = min(offer.within_s for offer in offers.values())
        barred = f"the patience is {patience_s:g} s, and the fastest batch API takes {least:g} s"
    else:
        return patient
    _log.warning("no provider's batch API is used: %s", barred)
    return {}


class BatchArms:
    """The batch APIs of K models. `columns` (K,) are those of their models."""

    def __init__(self, parts: Parts, offers: Mapping[str, BatchOffer]) -> None:
        self._parts = parts
        self.models = tuple(offers)
        self.offers = tuple(offers.values())
        self.columns = np.array([parts.names.index(name) for name in self.models], dtype=np.int64)

    def offer(self, prepared: PreparedBatch) -> PreparedBatch:
        """Return the requests with a column for each batch API: the model's own quality, at a discount."""
        columns = self.columns
        shares = np.array([offer.price_share for offer in self.offers])
        waits = np.array([_may_wait(request) for request in prepared.requests])
        return replace(
            prepared,
            forecast=_with_columns(prepared.forecast, columns, self.models),
            quality=np.hstack([prepared.quality, prepared.quality[:, columns]]),
            cost_usd=np.hstack([prepared.cost_usd, prepared.cost_usd[:, columns] * shares]),
            eligible=np.hstack([prepared.eligible, prepared.eligible[:, columns] & waits[:, None]]),
            waiting_usd=np.append(prepared.waiting_usd, np.zeros(len(columns))),
        )

    def widen(self, alone: RoutingProblem, wider: PreparedBatch) -> RoutingProblem:
        """Return the problem with the batch APIs as columns. They have no slots to run out of.

        A request that a model's batch API may answer is not offered the same answer at the usual price. Else a budget
        that is large enough would not mind.
        """
        columns, models = self.columns, len(alone.models)
        eligible = wider.eligible.copy()
        cheaper = np.array([offer.discount > 0 for offer in self.offers])
        eligible[:, columns] &= ~(wider.eligible[:, models:] & cheaper)
        own = len(self._parts.groups)
        outside = np.zeros(len(columns), dtype=np.bool_)
        return replace(
            alone,
            quality=wider.quality,
            cost_usd=np.hstack([alone.cost_usd, wider.cost_usd[:, models:]]),
            eligible=eligible,
            capacity=np.append(alone.capacity, np.full(len(columns), len(wider.requests))),
            models=wider.forecast.models,
            groups=tuple(
                GroupShare(
                    each.name,
                    np.append(each.members, each.members[columns] if place < own else outside),
                    each.at_least,
                    each.at_most,
                )
                for place, each in enumerate(alone.groups)
            ),
        )


def _may_wait(request: Request) -> bool:
    """Whether a request can be a row: nothing in it belongs to a single HTTP call, and nobody waits for it."""
    return request.deadline_s is None and not (_NEVER_IN_A_BATCH & request.parameters.keys())


def _with_columns(forecast: Forecast, columns: IntArray, models: Sequence[str]) -> Forecast:
    arrays = {name: getattr(forecast, name) for name in FORECAST_ARRAYS}
    wider = {
        name: np.hstack([array, array[:, columns]])
        for name, array in arrays.items()
        if array is not None and array.ndim == 2
    }
    return replace(forecast, models=(*forecast.models, *map(batch_arm, models)), **wider)
