"""What is remembered of every decision, until its label makes it an outcome of the history."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.decision_log import (
    BaseDecisionLog,
    CompletionEntry,
    DecisionEntry,
    LabelEntry,
    LoggedDecision,
    ShadowLabelEntry,
    SpendingEntry,
    outranks,
)
from eccos_core.domain import (
    BATCH_ARM,
    Completion,
    Decision,
    Float32Array,
    Judgement,
    LabellingCall,
    LabelSource,
    Outcome,
)
from eccos_core.errors import InputError, UnknownDecisionError
from eccos_core.io.tokens import text_key
from eccos_core.protocols import HistoryStore
from eccos_core.routing.fallbacks import FallbackChain
from eccos_core.routing.prepared import PreparedBatch
from eccos_core.routing.sessions import Sessions

MAX_REMEMBERED_DECISIONS = 100_000  # how many can be labelled without a decision log; the oldest are forgotten first


@dataclass(frozen=True, slots=True, eq=False)
class LabelledDecision:
    """A decision whose answer was labelled. `quality` is the label.

    `forecast` is what was expected of `model`. It is None for a logged decision that did not forecast this model.
    """

    id: str
    model: str
    vector: Float32Array
    forecast: float | None
    quality: float
    source: LabelSource


@dataclass(frozen=True, slots=True, eq=False)
class _Remembered:
    text: str | None
    vector: Float32Array
    model: str
    models: Sequence[str]
    qualities: Sequence[float]  # as forecast, one for each of `models`
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    source: LabelSource | None = None  # of its label
    tenant: str | None = None

    def answered_by(self, completion: Completion) -> _Remembered:
        """Return the same question with this answer."""
        return replace(
            self,
            model=completion.model,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            cost_usd=None if self.model.endswith(BATCH_ARM) else completion.cost_usd,  # a discount is no price
        )


class DecisionStore:
    """Keeps decisions in memory and, where there is one, in the decision log. Safe to use from several threads."""

    def __init__(
        self,
        history: HistoryStore | None = None,
        log: BaseDecisionLog | None = None,
        sessions: Sessions | None = None,
        *,
        max_decisions: int = MAX_REMEMBERED_DECISIONS,
    ) -> None:
        self.history = history
        self.log = log
        self.sessions = sessions
        self._max_decisions = max_decisions
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._lock = threading.Lock()
        self.labelled = 0  # labels that counted, since the start

    def add_decisions(
        self, prepared: PreparedBatch, made: Sequence[Decision], quality_asked: Sequence[float | None] | None = None
    ) -> None:
        """Remembers a batch of decisions, or one. `quality_asked` (R,): the floor that held for each, in [0, 1]."""
        with self._lock:
            models = prepared.forecast.models
            tenants = [request.tenant for request in prepared.requests]
            quality = prepared.forecast.quality.tolist()
            for text, vector, row, decision, tenant in zip(
                prepared.texts, prepared.vectors, quality, made, tenants, strict=True
            ):
                self._remembered[decision.id] = _Remembered(text, vector, decision.model, models, row, tenant=tenant)
            while len(self._remembered) > self._max_decisions:
                self._remembered.popitem(last=False)
        if self.log is None:
            return
        quality, cost = prepared.forecast.quality.tolist(), prepared.cost_usd.tolist()
        names, good = prepared.forecast.models, prepared.good.tolist()
        for row, decision in enumerate(made):
            request = prepared.requests[row]
            self.log.add_decision(
                DecisionEntry(
                    decision=decision,
                    text=prepared.texts[row],
                    vector=prepared.vectors[row],
                    input_tokens=int(prepared.input_tokens[row]),
                    forecast=dict(
                        zip(prepared.forecast.models, zip(quality[row], cost[row], strict=True), strict=True)
                    ),
                    session_id=request.session_id,
                    tenant=request.tenant,
                    quality_asked=None if quality_asked is None else quality_asked[row],
                    left_out=tuple(name for name, may in zip(names, good[row], strict=True) if not may),
                )
            )

    def add_completion(
        self,
        decision: Decision,
        session_id: str | None,
        completion: Completion,
        attempts: FallbackChain,
        whole: Completion | None = None,
    ) -> None:
        """Remembers who answered, with how many tokens, and at what cost.

        `whole`: the same answer with the cost and the calls of a plan, if there was one. The log gets this one.
        """
        with self._lock:
            remembered = self._remembered.get(decision.id)
            if remembered is not None:
                self._remembered[decision.id] = remembered.answered_by(completion)
        if self.sessions is not None:
            self.sessions.record_completion(session_id, completion)
        if self.log is not None:
            self.log.add_completion(CompletionEntry(decision.id, whole or completion, attempts.failures))

    def add_other_answer(
        self, decision_id: str, completion: Completion, quality: float, judgement: Judgement | None = None
    ) -> None:
        """Adds another model's graded answer to the same question to the history. Forgotten decisions add nothing."""
        if self.log is not None:
            self.log.add_shadow_label(ShadowLabelEntry(decision_id, completion.model, quality, judgement))
        with self._lock:
            remembered = self._remembered.get(decision_id)
        if remembered is None:
            return
        self._add_outcome(remembered.answered_by(completion), quality)

    def add_spending(self, decision_id: str, call: LabellingCall, usd: float) -> None:
        """Keeps in the log, where there is one, what a call that labels has cost."""
        if self.log is not None:
            self.log.add_spending(SpendingEntry(decision_id, call, usd))

    def add_failure(self, decision: Decision, attempts: FallbackChain) -> None:
        """Remembers that nobody answered."""
        if self.log is not None:
            self.log.add_completion(CompletionEntry(decision.id, None, attempts.failures))

    def tenant_of(self, decision_id: str) -> str | None:
        """Says whose request a decision was for. None for a request without a tenant.

        Waits for a decision that is still on its way to the log. Raises `UnknownDecisionError`.
        """
        with self._lock:
            remembered = self._remembered.get(decision_id)
        if remembered is not None:
            return remembered.tenant
        if self.log is None:
            raise UnknownDecisionError(decision_id)
        return self.log.find(decision_id).tenant

    def flush(self) -> None:
        """Waits until the decision log, where there is one, has written what it was given so far."""
        if self.log is not None:
            self.log.flush()

    def label(
        self, decision_id: str, quality: float, source: LabelSource = "human", judgement: Judgement | None = None
    ) -> LabelledDecision | None:
        """Attaches a label, in [0, 1], adds the outcome to the history, and returns what there is to learn from.

        A label never replaces one of a more trusted source. Then it is kept in the log only, and None is returned.

        Raises `UnknownDecisionError`, and `InputError` for a quality outside [0, 1]. The query of an outcome is the
        text of the request; a decision made before a restart is known to the log only, and joins the history only
        when the log keeps text.
        """
        if not 0 <= quality <= 1:
            raise InputError(f"decision {decision_id!r}: quality is {quality}, must be in [0, 1]")
        with self._lock:
            remembered = self._remembered.get(decision_id)
        if self.log is not None:
            remembered = self._from_log(LabelEntry(decision_id, quality, source, judgement), remembered)
        if remembered is None:
            raise UnknownDecisionError(decision_id)
        if not outranks(source, remembered.source):
            return None
        return self._count_label(decision_id, remembered, quality, source)

    def take_label(self, logged: LoggedDecision, source: LabelSource) -> LabelledDecision:
        """Takes in a label that another replica has put into the log that both share.

        The outcome joins the history of this one, where its question is known: this replica decided it, or the log
        keeps prompts. Returns what there is to learn from.
        """
        assert logged.label is not None
        with self._lock:
            remembered = self._remembered.get(logged.id)
        return self._count_label(logged.id, remembered or _read_logged(logged), logged.label, source)

    def _count_label(
        self, decision_id: str, remembered: _Remembered, quality: float, source: LabelSource
    ) -> LabelledDecision:
        with self._lock:
            self.labelled += 1
            if decision_id in self._remembered:
                self._remembered[decision_id] = replace(remembered, source=source)
        model = remembered.model
        forecast = dict(zip(remembered.models, remembered.qualities, strict=True)).get(model)
        labelled = LabelledDecision(decision_id, model, remembered.vector, forecast, float(quality), source)
        self._add_outcome(remembered, quality)
        return labelled

    def _add_outcome(self, remembered: _Remembered, quality: float) -> None:
        """Adds an answer and its label to the history. Without a history or a text there is nothing to add."""
        if self.history is None or remembered.text is None:
            return
        outcome = Outcome(
            question_id=text_key(remembered.text),
            query=remembered.text,
            model=remembered.model,
            quality=float(quality),
            input_tokens=remembered.input_tokens,
            output_tokens=remembered.output_tokens,
            cost_usd=remembered.cost_usd,
        )
        self.history.add([outcome], np.asarray(remembered.vector, dtype=np.float32)[None, :])

    def _from_log(self, label: LabelEntry, remembered: _Remembered | None) -> _Remembered:
        """Labels the logged decision; gives what is remembered, from memory or else from the log."""
        assert self.log is not None
        try:
            logged = self.log.add_label(label)
        except UnknownDecisionError:
            if remembered is None:
                raise
            return remembered  # the log lost it (a full disk), the memory did not
        known = _read_logged(logged)
        return known if remembered is None else replace(remembered, source=known.source)


def _read_logged(logged: LoggedDecision) -> _Remembered:
    return _Remembered(
        logged.text,
        logged.vector,
        logged.model or logged.decided_model,
        tuple(logged.forecast),
        [quality for quality, _ in logged.forecast.values()],
        logged.input_tokens,
        logged.output_tokens,
        logged.answer_usd,
        None if logged.label is None else logged.label_source or "human",
        logged.tenant,
    )
