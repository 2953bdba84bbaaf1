"""Decides a batch that has patience: models may also be called through their providers' batch APIs, at a discount."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from eccos_core.backends.provider_batches.state import row_name
from eccos_core.domain import (
    BATCH_ARM,
    FORECAST_ARRAYS,
    BatchOffer,
    BoolArray,
    Decision,
    Forecast,
    GroupShare,
    IntArray,
    Policy,
    Request,
    RoutingProblem,
    SolutionStatus,
    batch_arm,
)
from eccos_core.protocols import BatchCalls
from eccos_core.routing.decisions import build_decisions
from eccos_core.routing.parts import Parts
from eccos_core.routing.prepared import PreparedBatch

if TYPE_CHECKING:
    from eccos_core.routing.pipeline import Pipeline, RequestLike

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


class PatientRoute:
    """Assigns batches like `Pipeline.route`, some requests to batch APIs. `row_of` then maps those decisions to rows.

    `session` knows the batches that are open. A request that one of them has stays there.
    """

    def __init__(self, pipeline: Pipeline, offers: Mapping[str, BatchOffer], session: BatchCalls) -> None:
        self._pipeline, self._session = pipeline, session
        self._models = tuple(offers)
        self._offers = tuple(offers.values())
        names = pipeline.parts.names
        self._columns = np.array([names.index(name) for name in self._models], dtype=np.int64)
        self.row_of: dict[str, str] = {}

    def route(self, requests: Sequence[RequestLike], policy: Policy | None) -> list[Decision]:
        """Assign a batch jointly. Raises as `Pipeline.route`."""
        pipeline, parts = self._pipeline, self._pipeline.parts
        asked = [pipeline.parse(each) for each in requests]
        rows = name_rows(asked)
        made: dict[int, Decision] = {}
        self.row_of.clear()
        free = parts.workload.free_slots(parts.names)
        for part, places in pipeline.group_by_policy(asked, policy).items():
            with parts.telemetry.step("route", [asked[place] for place in places]):
                prepared = pipeline.decider.prepare([asked[place] for place in places])
                decided = self._assign(prepared, part, free, [rows[place] for place in places])
            made.update(zip(places, decided, strict=True))
            calls = np.array([sum(each.model == name for each in decided) for name in parts.names])
            free = pipeline.decider.deployments.take(free, calls)
        return [made[place] for place in range(len(asked))]

    def _assign(self, prepared: PreparedBatch, policy: Policy, free: IntArray, rows: Sequence[str]) -> list[Decision]:
        decider, models = self._pipeline.decider, len(self._pipeline.parts.models)
        counted = prepared.under(policy)
        wider = self._with_arms(counted)
        eligible, found = self._pin(wider.eligible, counted, rows)
        problem = replace(self._widen(decider.problem(prepared, policy, free), wider, len(rows)), eligible=eligible)
        with self._pipeline.parts.telemetry.step("optimise", prepared.requests):
            assignment = decider.solve(problem, policy)
        sources = decider.sources()
        decisions = build_decisions(
            wider.requests,
            wider.forecast,
            wider.cost_usd,
            wider.good,
            assignment.model_index,
            assignment.prices,
            floor_met=assignment.status is not SolutionStatus.BEST_EFFORT,
            overhead_s=(time.perf_counter() - prepared.started) / len(rows),
            sources=(*sources, *(sources[column] for column in self._columns)) if sources else (),
            waiting_usd=wider.waiting_usd,
            counted_quality=wider.quality,
        )
        made = []
        for place, (decision, column) in enumerate(zip(decisions, assignment.model_index.tolist(), strict=True)):
            live = tuple(name for name in decision.fallbacks if not name.endswith(BATCH_ARM))
            reason = decision.reason
            if column >= models:
                self.row_of[decision.id] = rows[place]
                reason += _say_batch(self._offers[column - models], is_found=bool(found[place]))
            made.append(replace(decision, fallbacks=live, reason=reason))
        self._remember(prepared, wider, made, assignment.model_index, policy)
        return made

    def _with_arms(self, prepared: PreparedBatch) -> PreparedBatch:
        """Return the requests with a column for each batch API: the model's own quality, at a discount."""
        columns = self._columns
        shares = np.array([offer.price_share for offer in self._offers])
        waits = np.array([_may_wait(request) for request in prepared.requests])
        return replace(
            prepared,
            forecast=_with_columns(prepared.forecast, columns, self._models),
            quality=np.hstack([prepared.quality, prepared.quality[:, columns]]),
            cost_usd=np.hstack([prepared.cost_usd, prepared.cost_usd[:, columns] * shares]),
            eligible=np.hstack([prepared.eligible, prepared.eligible[:, columns] & waits[:, None]]),
            waiting_usd=np.append(prepared.waiting_usd, np.zeros(len(columns))),
        )

    def _pin(self, eligible: BoolArray, counted: PreparedBatch, rows: Sequence[str]) -> tuple[BoolArray, BoolArray]:
        """Leave requests of open batches there. Returns the mask (R, M + K), and which requests (R,) those are."""
        models = counted.quality.shape[1]
        eligible, found = eligible.copy(), np.zeros(len(rows), dtype=np.bool_)
        for place, row in enumerate(rows):
            model = self._session.model_of(row)
            if model not in self._models:
                continue
            arm = self._models.index(model)
            if counted.good[place, self._columns[arm]]:
                eligible[place] = False
                eligible[place, models + arm] = found[place] = True
        return eligible, found

    def _widen(self, alone: RoutingProblem, wider: PreparedBatch, requests: int) -> RoutingProblem:
        """Return the problem with the batch APIs as columns. They have no slots to run out of."""
        columns, models = self._columns, len(alone.models)
        own = len(self._pipeline.parts.groups)
        outside = np.zeros(len(columns), dtype=np.bool_)
        return replace(
            alone,
            quality=wider.quality,
            cost_usd=np.hstack([alone.cost_usd, wider.cost_usd[:, models:]]),
            eligible=wider.eligible,
            capacity=np.append(alone.capacity, np.full(len(columns), requests)),
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

    def _remember(
        self, prepared: PreparedBatch, wider: PreparedBatch, made: Sequence[Decision], chosen: IntArray, policy: Policy
    ) -> None:
        """Remember decisions for calls over the pool, and each one for a batch over the pool and its batch API."""
        models = prepared.quality.shape[1]
        for column in np.unique(np.where(chosen < models, -1, chosen)).tolist():
            rows = np.flatnonzero(chosen < models) if column < 0 else np.flatnonzero(chosen == column)
            part = (prepared if column < 0 else _only(wider, [*range(models), column])).rows(rows)
            self._pipeline.remember(part, [made[row] for row in rows.tolist()], policy)


def name_rows(requests: Sequence[Request]) -> list[str]:
    """Name each request by its content, and equal ones by their order."""
    seen: Counter[str] = Counter()
    names = []
    for request in requests:
        first = row_name(request, 0)
        names.append(row_name(request, seen[first]))
        seen[first] += 1
    return names


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


def _only(prepared: PreparedBatch, columns: Sequence[int]) -> PreparedBatch:
    """Return the requests with these columns only."""
    arrays = {name: getattr(prepared.forecast, name) for name in FORECAST_ARRAYS}
    kept = {name: array[:, columns] for name, array in arrays.items() if array is not None and array.ndim == 2}
    names = tuple(prepared.forecast.models[column] for column in columns)
    return replace(
        prepared,
        forecast=replace(prepared.forecast, models=names, **kept),
        quality=prepared.quality[:, columns],
        cost_usd=prepared.cost_usd[:, columns],
        eligible=prepared.eligible[:, columns],
        waiting_usd=prepared.waiting_usd[columns],
    )


def _say_batch(offer: BatchOffer, *, is_found: bool) -> str:
    said = f" It goes through the provider's batch API: {offer.discount:.0%} off, within {offer.within_s / 3600:g} h."
    return said + (" An earlier call had submitted it already." if is_found else "")
