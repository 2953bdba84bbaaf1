"""Calls a batch that has patience: some of it through batch APIs. What a provider leaves open is called at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eccos_core.domain import BATCH_ARM, BatchOffer, Completion, Decision, Policy, Request
from eccos_core.errors import Attempt, BackendError, EccosError, InputError, ProviderBatchError
from eccos_core.protocols import BatchCalls
from eccos_core.routing.batch import acall_all, call_all
from eccos_core.routing.batch_arms import usable_offers
from eccos_core.routing.execution import Execution
from eccos_core.routing.fallbacks import FallbackChain
from eccos_core.routing.parts import Parts
from eccos_core.routing.patient_route import PatientRoute

if TYPE_CHECKING:
    from eccos_core.routing.pipeline import Pipeline, RequestLike


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a batch may take, in seconds, the batch APIs that this is enough for, and who hears how it goes."""

    seconds: float
    offers: Mapping[str, BatchOffer]
    report: Callable[[str], None] | None = None


def find_patience(
    parts: Parts,
    patience_s: float | None,
    *,
    pack: bool | None = None,
    report: Callable[[str], None] | None = None,
) -> Patience | None:
    """Return the patience of a batch. None if there is none, or no batch API for it.

    Raises `InputError` for a patience that is no time, or that stands beside `pack=True`.
    """
    if patience_s is None:
        return None
    if not patience_s > 0:
        raise InputError(f"patience_s is {patience_s}, must be a number of seconds > 0, or None for no patience")
    if pack:
        raise InputError("pack=True stands beside patience_s. A provider's batch holds single requests: keep one")
    offers = usable_offers(parts, patience_s)
    return Patience(patience_s, offers, report) if offers else None


@dataclass(frozen=True, slots=True)
class _LiveCall:
    """A request that is called now. `failures` are what its batch came to."""

    place: int
    request: Request
    decision: Decision
    failures: tuple[Attempt, ...] = ()


def complete_patiently(
    pipeline: Pipeline, requests: Sequence[RequestLike], policy: Policy | None, patience: Patience, *, in_place: bool
) -> list[Completion | BaseException]:
    """Decide a batch, submit some of it, call the rest, and wait. Results are in order.

    With `in_place`, a request that no model may answer has its error in its place. Else that is raised, and so is the
    first error of a call. Answers that were paid for are then found again by the same call.
    """
    with _open(pipeline, patience) as session:
        batch = _PatientBatch(pipeline, requests, policy, patience, session, in_place=in_place)

        def call_live() -> None:
            calls = batch.take_calls()
            models = [pipeline.deployment(call.decision.model) for call in calls]
            made = call_all(models, pipeline.most_at_once, lambda i: pipeline.caller.call(batch.execution(calls[i])))
            batch.keep(calls, made)

        batch.leave_open(session.submit(batch.rows))
        call_live()
        batch.settle(session.collect())
        call_live()
        return batch.results(session, in_place=in_place)


async def acomplete_patiently(
    pipeline: Pipeline, requests: Sequence[RequestLike], policy: Policy | None, patience: Patience, *, in_place: bool
) -> list[Completion | BaseException]:
    """The asynchronous twin of `complete_patiently`."""
    with _open(pipeline, patience) as session:
        batch = await asyncio.to_thread(_PatientBatch, pipeline, requests, policy, patience, session, in_place=in_place)

        async def call_live() -> None:
            calls = batch.take_calls()
            models = [pipeline.deployment(call.decision.model) for call in calls]
            made = acall_all(models, pipeline.most_at_once, lambda i: pipeline.caller.acall(batch.execution(calls[i])))
            batch.keep(calls, await made)

        batch.leave_open(await session.asubmit(batch.rows))
        await call_live()
        batch.settle(await session.acollect())
        await call_live()
        return batch.results(session, in_place=in_place)


def _open(pipeline: Pipeline, patience: Patience) -> BatchCalls:
    provider = pipeline.parts.provider_batches
    assert provider is not None
    return provider.open_session(tuple(patience.offers), patience.seconds, patience.report)


class _PatientBatch:
    """The requests of one call: those at providers (`rows`), the calls left to make, and the results so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        requests: Sequence[RequestLike],
        policy: Policy | None,
        patience: Patience,
        session: BatchCalls,
        *,
        in_place: bool,
    ) -> None:
        self._pipeline = pipeline
        route = PatientRoute(pipeline, patience.offers, session)
        decided = pipeline.decide_batch(requests, policy, in_place=in_place, route=route.route)
        self._results: dict[int, Completion | BaseException] = {}
        self._live: list[_LiveCall] = []
        self._waiting: dict[str, _LiveCall] = {}  # by row
        self.rows: dict[str, dict[str, Request]] = {}
        for place, each in enumerate(decided):
            if isinstance(each, EccosError):
                self._results[place] = each
                continue
            request, decision = each
            call = _LiveCall(place, request, decision)
            row = route.row_of.get(decision.id)
            if row is None:
                self._live.append(call)
            else:
                self._waiting[row] = call
                self.rows.setdefault(decision.model.removesuffix(BATCH_ARM), {})[row] = request

    def take_calls(self) -> list[_LiveCall]:
        """Return the calls to make now."""
        calls, self._live = self._live, []
        return calls

    def execution(self, call: _LiveCall) -> Execution:
        """Make the execution of a call."""
        return self._pipeline.execute(call.request, call.decision, earlier=call.failures)

    def keep(self, calls: Sequence[_LiveCall], results: Sequence[Completion | BaseException]) -> None:
        """Keep what calls gave."""
        self._results.update((call.place, result) for call, result in zip(calls, results, strict=True))

    def leave_open(self, refused: Mapping[str, BackendError]) -> None:
        """Call the requests at once that no batch took."""
        self.settle(refused)

    def settle(self, found: Mapping[str, Completion | BackendError | ProviderBatchError]) -> None:
        """Keep what the batches gave. A request that has no answer is called next, unless nobody could answer it."""
        for row, result in found.items():
            call = self._waiting.pop(row)
            if isinstance(result, Completion):
                self._results[call.place] = give_batched(self._pipeline, call.request, call.decision, result)
            elif isinstance(result, BackendError):
                again = call_after_batch(self._pipeline, call.decision, result)
                if again is None:
                    self._results[call.place] = result
                else:
                    decision, failed = again
                    self._live.append(_LiveCall(call.place, call.request, decision, (failed,)))
            else:
                self._results[call.place] = result

    def results(self, session: BatchCalls, *, in_place: bool) -> list[Completion | BaseException]:
        """Return the results in the order of the requests. The batches are forgotten if you get all that was paid."""
        results = [self._results[place] for place in range(len(self._results))]
        if in_place or not any(isinstance(each, BaseException) for each in results):
            session.finish()
        return results


def give_batched(pipeline: Pipeline, request: Request, decision: Decision, completion: Completion) -> Completion:
    """Record the answer of a row, and return it with its decision."""
    chain = FallbackChain(decision, pipeline.parts.max_attempts)
    pipeline.parts.decision_store.add_completion(decision, None, completion, chain)
    pipeline.show_answer(request, decision, completion)
    return replace(completion, decided_by=decision)


def call_after_batch(pipeline: Pipeline, decision: Decision, error: BackendError) -> tuple[Decision, Attempt] | None:
    """Return the decision for a call at once, at the usual price, after a batch left a row open, and what failed.

    The same model keeps the quality that was decided for, so it comes first, unless it cannot answer this request.
    None if nobody can answer it, which is recorded.
    """
    failed = Attempt(decision.model, error.kind, str(error), 0.0)
    if error.kind.blames_request:
        chain = FallbackChain(decision, pipeline.parts.max_attempts, earlier=[failed])
        pipeline.parts.decision_store.add_failure(decision, chain)
        return None
    own = decision.model.removesuffix(BATCH_ARM)
    others = [name for name in decision.fallbacks if name != own]
    first, *others = [own, *others] if error.retryable else [*others, own]
    reason = f"{decision.reason} Called at once: {error}."
    return replace(decision, model=first, fallbacks=tuple(others), reason=reason), failed
