"""Answers a whole batch: through batch APIs where it has patience, packed where that pays, else one call each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

from eccos_core.domain import Completion, Policy
from eccos_core.routing.batch import acall_all, call_all
from eccos_core.routing.packing import acomplete_packed, complete_packed
from eccos_core.routing.patient_batch import Patience, acomplete_patiently, complete_patiently, find_patience

if TYPE_CHECKING:
    from eccos_core.domain import Decision, Request
    from eccos_core.errors import EccosError
    from eccos_core.routing.pipeline import Pipeline, RequestLike


class BatchOptions(TypedDict, total=False):
    """How `Router.complete_batch` answers a batch. Its documentation explains each."""

    policy: Policy | None
    pack: bool | None
    patience_s: float | None
    report: Callable[[str], None] | None


def complete_batch(
    pipeline: Pipeline, requests: Sequence[RequestLike], options: BatchOptions, *, in_place: bool
) -> list[Completion | BaseException]:
    """Assign a batch jointly and answer it. Results are in order, with what went wrong in its place.

    With `in_place` that includes the requests that no model may answer. Else these raise.
    """
    policy, patience = options.get("policy"), _find_patience(pipeline, options)
    if patience is not None:
        return complete_patiently(pipeline, requests, policy, patience, in_place=in_place)
    if pipeline.packs(options.get("pack")):
        return complete_packed(pipeline, requests, policy, in_place=in_place)
    batch = pipeline.decide_batch(requests, policy, in_place=in_place)
    jobs, models = _jobs(pipeline, batch)
    called = call_all(models, pipeline.most_at_once, lambda i: pipeline.caller.call(pipeline.execute(*jobs[i])))
    return _merge(batch, called)


async def acomplete_batch(
    pipeline: Pipeline, requests: Sequence[RequestLike], options: BatchOptions, *, in_place: bool
) -> list[Completion | BaseException]:
    """The asynchronous twin of `complete_batch`."""
    policy, patience = options.get("policy"), _find_patience(pipeline, options)
    if patience is not None:
        return await acomplete_patiently(pipeline, requests, policy, patience, in_place=in_place)
    if pipeline.packs(options.get("pack")):
        return await acomplete_packed(pipeline, requests, policy, in_place=in_place)
    batch = await asyncio.to_thread(pipeline.decide_batch, requests, policy, in_place=in_place)
    jobs, models = _jobs(pipeline, batch)
    called = await acall_all(models, pipeline.most_at_once, lambda i: pipeline.caller.acall(pipeline.execute(*jobs[i])))
    return _merge(batch, called)


def _find_patience(pipeline: Pipeline, options: BatchOptions) -> Patience | None:
    return find_patience(
        pipeline.parts, options.get("patience_s"), pack=options.get("pack"), report=options.get("report")
    )


def _jobs(
    pipeline: Pipeline, batch: Sequence[tuple[Request, Decision] | EccosError]
) -> tuple[list[tuple[Request, Decision]], list[str]]:
    """Return the requests to call, and the deployment whose slots each takes."""
    jobs = [each for each in batch if isinstance(each, tuple)]
    return jobs, [pipeline.deployment(decision.model) for _, decision in jobs]


def _merge(
    batch: Sequence[tuple[Request, Decision] | EccosError], called: Sequence[Completion | BaseException]
) -> list[Completion | BaseException]:
    """Put the results of the calls between the requests that were refused."""
    results = iter(called)
    return [next(results) if isinstance(each, tuple) else each for each in batch]
