"""The rows of a batch that a provider's batch API answers: half the price, for up to a day's patience."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TypeAlias

from eccos_core.domain import BATCH_ARM, BatchOffer, Completion, Decision, Request
from eccos_core.errors import BackendError, EccosError, FailureKind, ProviderBatchError
from eccos_core.io.tokens import count_tokens, text_key
from eccos_core.protocols import BatchCalls
from eccos_core.routing.patient_batch import call_after_batch, give_batched
from eccos_core.routing.patient_route import PatientRoute
from eccos_core.routing.pipeline import Pipeline
from eccos_core.routing.pricing import worst_usd
from eccos_core.server.batch_record import BatchRecord
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller, Gate, NoSpending, Spending

RowOutcome: TypeAlias = Completion | Decision | EccosError  # a decision: the row is called at once
_log = logging.getLogger("eccos.server")


class ProviderRows:
    """What one batch has at providers. `session` is that of the batch, with its id as scope. `asked`: its requests.

    Rows are named by their `custom_id`, so a restart finds each one again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        offers: Mapping[str, BatchOffer],
        session: BatchCalls,
        record: BatchRecord,
        asked: Mapping[str, Request],
    ) -> None:
        self._pipeline, self._offers, self._session, self._record = pipeline, offers, session, record
        self._asked = asked
        self._row_of = {request.id: f"eccos-{text_key(custom_id)[:40]}" for custom_id, request in asked.items()}
        self._custom_id_of = {self._row_of[request.id]: custom_id for custom_id, request in asked.items()}
        self._route = PatientRoute(
            pipeline, offers, session, lambda requests: [self._row_of[each.id] for each in requests]
        )
        self.waiting: dict[str, Decision] = {}  # those at a provider, by custom_id
        self._spending: Spending = NoSpending()
        self.route = self._route.route
        self.is_cancelled = False

    async def submit(
        self, gate: Gate, caller: Caller, decided: Mapping[str, Decision | EccosError]
    ) -> dict[str, RowOutcome]:
        """Submit the rows that were assigned to batch APIs. Returns those that are called at once instead.

        Money for all of them is set aside together. Where the budget has not so much, new rows are called at once, as
        calls need money for a few of them at a time.
        """
        for custom_id, decision in decided.items():
            if isinstance(decision, Decision) and decision.id in self._route.row_of:
                self.waiting[custom_id] = decision
        left: dict[str, RowOutcome] = {}
        if not self.waiting:
            return left
        try:
            self._spending = await gate.reserve_batch(caller, self._record.id, self._most_usd())
        except ApiError as error:
            _log.warning("%s: its rows are called at once: %s", self._record.id, error.message)
            for custom_id in [each for each in self.waiting if self._session.model_of(self._row(each)) is None]:
                left[custom_id] = self._leave(custom_id, _unpaid(self.waiting[custom_id]))
        rows: dict[str, dict[str, Request]] = {}
        for custom_id, decision in self.waiting.items():
            rows.setdefault(_model(decision), {})[self._row(custom_id)] = self._pipeline.parse(self._asked[custom_id])
        for row, refusal in (await self._session.asubmit(rows)).items():
            left[self._custom_id_of[row]] = self._leave(self._custom_id_of[row], refusal)
        return left

    async def results(self) -> AsyncGenerator[tuple[str, RowOutcome], None]:
        """Wait, and yield what becomes of each row, as soon as its batch at the provider is over."""
        async with aclosing(self._session.aresults()) as batches:
            async for found in batches:
                for row, result in found.items():
                    custom_id = self._custom_id_of[row]
                    if isinstance(result, Completion):
                        decision = self.waiting.pop(custom_id)
                        yield custom_id, give_batched(self._pipeline, self._asked[custom_id], decision, result)
                    elif isinstance(result, BackendError):
                        yield custom_id, self._leave(custom_id, result)
                    elif not (self.is_cancelled and isinstance(result, ProviderBatchError)):
                        yield custom_id, result

    async def cancel(self) -> None:
        """Ask the providers to stop. `results` then ends soon, with the answers that there are."""
        self.is_cancelled = True
        await self._session.acancel()

    async def settle(self, cost_usd: float) -> None:
        """Pay for the rows, once all of their results are kept, and forget them."""
        await self._spending.settle(cost_usd)
        self._session.finish()

    def _leave(self, custom_id: str, error: BackendError) -> RowOutcome:
        again = call_after_batch(self._pipeline, self.waiting.pop(custom_id), error)
        return error if again is None else again[0]

    def _most_usd(self) -> float:
        """Return the most that the rows are likely to cost together, in USD."""
        models = {model.name: model for model in self._pipeline.parts.models}
        total = 0.0
        for custom_id, decision in self.waiting.items():
            name, request = _model(decision), self._asked[custom_id]
            usd = worst_usd(models[name], request, count_tokens(request.messages))
            total += usd * self._offers[name].price_share
        return total

    def _row(self, custom_id: str) -> str:
        return self._row_of[self._asked[custom_id].id]


def _model(decision: Decision) -> str:
    return decision.model.removesuffix(BATCH_ARM)


def _unpaid(decision: Decision) -> BackendError:
    said = "the budget cannot set aside what the whole batch may cost"
    return BackendError(_model(decision), said, retryable=True, kind=FailureKind.UNAVAILABLE)
