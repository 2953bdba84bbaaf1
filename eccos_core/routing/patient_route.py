"""Decides a batch that has patience: models may also be called through their providers' batch APIs, at a discount."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from eccos_core.backends.provider_batches.state import row_name
from eccos_core.domain import (
    BATCH_ARM,
    FORECAST_ARRAYS,
    BatchOffer,
    BoolArray,
    Decision,
    IntArray,
    Policy,
    Request,
    SolutionStatus,
)
from eccos_core.protocols import BatchCalls
from eccos_core.routing.batch_arms import BatchArms
from eccos_core.routing.decisions import build_decisions
from eccos_core.routing.prepared import PreparedBatch

if TYPE_CHECKING:
    from eccos_core.routing.pipeline import Pipeline, RequestLike

NameRows: TypeAlias = Callable[[Sequence[Request]], list[str]]  # the names of a batch's requests, as rows


class PatientRoute:
    """Assigns batches like `Pipeline.route`, some requests to batch APIs. `row_of` then maps those decisions to rows.

    `session` knows the batches that are open. A request that one of them has stays there. `name` names the rows,
    `name_rows` by default.
    """

    def __init__(
        self, pipeline: Pipeline, offers: Mapping[str, BatchOffer], session: BatchCalls, name: NameRows | None = None
    ) -> None:
        self._pipeline, self._session = pipeline, session
        self._name = name or name_rows
        self._arms = BatchArms(pipeline.parts, offers)
        self.row_of: dict[str, str] = {}

    def route(self, requests: Sequence[RequestLike], policy: Policy | None) -> list[Decision]:
        """Assign a batch jointly. Raises as `Pipeline.route`."""
        pipeline, parts = self._pipeline, self._pipeline.parts
        asked = [pipeline.parse(each) for each in requests]
        rows = self._name(asked)
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
        wider = self._arms.offer(counted)
        problem = self._arms.widen(decider.problem(prepared, policy, free), wider)
        eligible, found = self._pin(problem.eligible, counted, rows)
        problem = replace(problem, eligible=eligible)
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
            sources=(*sources, *(sources[column] for column in self._arms.columns)) if sources else (),
            waiting_usd=wider.waiting_usd,
            counted_quality=wider.quality,
        )
        made = []
        for place, (decision, column) in enumerate(zip(decisions, assignment.model_index.tolist(), strict=True)):
            live = tuple(name for name in decision.fallbacks if not name.endswith(BATCH_ARM))
            reason = decision.reason
            if column >= models:
                self.row_of[decision.id] = rows[place]
                reason += _say_batch(self._arms.offers[column - models], is_found=bool(found[place]))
            made.append(replace(decision, fallbacks=live, reason=reason))
        self._remember(prepared, wider, made, assignment.model_index, policy)
        return made

    def _pin(self, eligible: BoolArray, counted: PreparedBatch, rows: Sequence[str]) -> tuple[BoolArray, BoolArray]:
        """Leave requests of open batches there. Returns the mask (R, M + K), and which requests (R,) those are."""
        models = counted.quality.shape[1]
        eligible, found = eligible.copy(), np.zeros(len(rows), dtype=np.bool_)
        for place, row in enumerate(rows):
            model = self._session.model_of(row)
            if model not in self._arms.models:
                continue
            arm = self._arms.models.index(model)
            if counted.good[place, self._arms.columns[arm]]:
                eligible[place] = False
                eligible[place, models + arm] = found[place] = True
        return eligible, found

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
