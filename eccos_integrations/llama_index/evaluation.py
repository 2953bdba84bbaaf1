"""Turn evaluations into labels: what LlamaIndex's evaluators say of an answer joins its decision."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from llama_index.core.evaluation import BaseEvaluator, CorrectnessEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index_instrumentation import get_dispatcher

from eccos_core.errors import InputError
from eccos_core.router import Router
from eccos_integrations._shared.scores import ScoreScale
from eccos_integrations.llama_index.listeners import EventListener, SpanListener, read_text

logger = logging.getLogger(__name__)

MAX_ANSWERS = 100_000  # the oldest are forgotten first
CORRECTNESS_SCALE = (1.0, 5.0)  # the scale of LlamaIndex's CorrectnessEvaluator


class EvaluationRecorder:
    """Remember which decision led to which answer, and turn evaluations of an answer into `router.record`.

        recorder = EvaluationRecorder(llm.router)
        with recorder:
            response = engine.query(question)
        recorder.recording(FaithfulnessEvaluator()).evaluate_response(response=response)

    It listens inside its `with` block, or from `start` to `stop`. It knows the response that an engine returned. Of a
    text alone it knows the answer, and the question where several answers are the same. When several evaluators score
    one answer, the lowest score counts.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self._answers: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()  # answer -> (asked, decision id)
        self._scores: OrderedDict[str, dict[str, float]] = OrderedDict()  # decision id -> evaluator -> quality
        self._lock = threading.Lock()
        self._responses: dict[int, tuple[weakref.ref[Any], str]] = {}  # id of a response -> response, decision id
        self._spans = SpanListener(self._remember_response)
        self._events = EventListener(hear=self._hear)

    # ------------------------------------------------------------------------------------------------------- listening

    def start(self) -> None:
        """Listen to every LLM of this process from now on."""
        dispatcher = get_dispatcher()
        if self._events not in dispatcher.event_handlers:
            dispatcher.add_event_handler(self._events)
            dispatcher.add_span_handler(self._spans)

    def stop(self) -> None:
        """Stop listening, and keep what was heard."""
        dispatcher = get_dispatcher()
        dispatcher.event_handlers = [each for each in dispatcher.event_handlers if each is not self._events]
        dispatcher.span_handlers = [each for each in dispatcher.span_handlers if each is not self._spans]

    def __enter__(self) -> EvaluationRecorder:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _hear(self, asked: str, answer: str, decision_id: str, span_id: str | None) -> None:
        self._spans.add_decision(span_id, decision_id)
        self.remember_answer(asked, answer, decision_id)

    def _remember_response(self, response: Any, decision_id: str) -> None:
        """Remember which decision led to a response, for as long as the response lives."""
        key = id(response)
        with self._lock, suppress(TypeError):  # a text cannot be referred to
            if self._responses.get(key, (lambda: None,))[0]() is not response:  # the innermost engine knows best
                forget = weakref.ref(response, lambda _: self._responses.pop(key, None))
                self._responses[key] = (forget, decision_id)

    def remember_answer(self, asked: str, answer: str, decision_id: str) -> None:
        """Remember which decision led to an answer of a question."""
        with self._lock:
            self._answers.setdefault(answer.strip(), []).append((asked, decision_id))
            self._answers.move_to_end(answer.strip())
            while len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)

    def decisions_of(self, response: Any, query: str | None = None) -> tuple[str, ...]:
        """Return the ids of the decisions behind a response: that of its last answer, and that of the selector.

        The response comes from a query or chat engine or an LLM, or is the text of one.
        """
        selected = (getattr(response, "metadata", None) or {}).get("selector_result")
        found = [getattr(each, "decision_id", None) for each in getattr(selected, "selections", ())]
        found.append(
            (getattr(response, "additional_kwargs", None) or {}).get("decision_id")
            or self._find_by_response(response)
            or self._find_by_text(read_text(response), query)
        )
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def _find_by_response(self, response: Any) -> str | None:
        known = self._responses.get(id(response))
        return known[1] if known is not None and known[0]() is response else None

    def _find_by_text(self, answer: str, query: str | None) -> str | None:
        """Return the latest decision for this answer to this question. None where several questions may be meant."""
        with self._lock:
            known = list(self._answers.get(answer.strip(), ()))
        matching = [decision for asked, decision in known if query is not None and query in asked]
        if matching:
            return matching[-1]
        if len({decision for _, decision in known}) > 1:
            logger.warning("%d answers have the same text, and no prompt holds the question %r", len(known), query)
        return known[0][1] if len(known) == 1 else None

    # ------------------------------------------------------------------------------------------------------- recording

    def record(
        self,
        response: Any,
        result: EvaluationResult,
        *,
        query: str | None = None,
        evaluator: str = "",
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> int:
        """Label the decisions behind a response with what an evaluation says of it. Return how many were labelled.

        `scale` is the lowest and the highest score. An invalid evaluation labels none. Neither does a text that several
        questions had for an answer, where no prompt holds yours. Raises `InputError` for an answer that was not heard,
        and for a score outside the scale.
        """
        quality = _to_quality(result, scale)
        if quality is None:
            return 0
        decisions = self.decisions_of(response, query if query is not None else result.query)
        if not decisions and read_text(response).strip() not in self._answers:
            raise InputError(
                "this response is no answer of eccos that was heard here. Ask within `with recorder:`, or after "
                "recorder.start()."
            )
        for decision_id in decisions:
            with self._lock:
                scores = self._scores.setdefault(decision_id, {})
                scores[evaluator] = quality
                lowest = min(scores.values())
                while len(self._scores) > MAX_ANSWERS:
                    self._scores.popitem(last=False)
            self.router.record(decision_id, lowest)
        return len(decisions)

    def recording(self, evaluator: BaseEvaluator, scale: tuple[float, float] | None = None) -> RecordingEvaluator:
        """Return the same evaluator, which also records what it finds. Use it wherever evaluators go.

        `scale` is the lowest and the highest score. None means 1 to 5 for correctness, and 0 to 1 for all others.
        """
        if scale is None:
            scale = CORRECTNESS_SCALE if isinstance(evaluator, CorrectnessEvaluator) else (0.0, 1.0)
        return RecordingEvaluator(self, evaluator, scale)


class RecordingEvaluator(BaseEvaluator):
    """An evaluator that hands every result of another evaluator to an `EvaluationRecorder`."""

    def __init__(self, recorder: EvaluationRecorder, evaluator: BaseEvaluator, scale: tuple[float, float]) -> None:
        self.recorder = recorder
        self.evaluator = evaluator
        self.scale = scale

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"evaluator": self.evaluator}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Update nothing here. The evaluator is a module of its own, with its own prompts."""

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Evaluate the text of a response, and record the result."""
        result = await self.evaluator.aevaluate(query=query, response=response, contexts=contexts, **kwargs)
        self._record(response, result, query)
        return result

    def evaluate_response(self, query: str | None = None, response: Any = None, **kwargs: Any) -> EvaluationResult:
        """Evaluate a response, and record the result."""
        result = self.evaluator.evaluate_response(query=query, response=response, **kwargs)
        self._record(response, result, query)
        return result

    async def aevaluate_response(
        self, query: str | None = None, response: Any = None, **kwargs: Any
    ) -> EvaluationResult:
        """The asynchronous twin of `evaluate_response`."""
        result = await self.evaluator.aevaluate_response(query=query, response=response, **kwargs)
        self._record(response, result, query)
        return result

    def _record(self, response: Any, result: EvaluationResult, query: str | None) -> None:
        name = type(self.evaluator).__name__
        self.recorder.record(response, result, query=query, evaluator=name, scale=self.scale)


def _to_quality(result: EvaluationResult, scale: tuple[float, float]) -> float | None:
    """Return the quality in [0, 1]: the score on its scale, else whether it passed. None where there is neither."""
    checked_scale = ScoreScale(*scale, set_by="recording(..., scale=(lowest, highest))")
    if result.invalid_result:
        return None
    if result.score is None:
        return None if result.passing is None else float(result.passing)
    return checked_scale.to_quality(result.score)
