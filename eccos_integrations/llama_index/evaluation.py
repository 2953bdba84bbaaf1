"""Evaluations become labels: what LlamaIndex's evaluators say of an answer is recorded with its decision."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.evaluation import BaseEvaluator, CorrectnessEvaluator, EvaluationResult
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index_instrumentation import get_dispatcher

from eccos_core.errors import InputError
from eccos_core.router import Router

REMEMBERED_ANSWERS = 100_000  # the oldest are forgotten first
CORRECTNESS = (1.0, 5.0)  # the scale of LlamaIndex's CorrectnessEvaluator


class EvaluationRecorder:
    """Hears which decision led to which answer, and turns evaluations of an answer into `router.record`.

        recorder = EvaluationRecorder(llm.router)
        with recorder:
            response = engine.query(question)
        recorder.recording(FaithfulnessEvaluator()).evaluate_response(response=response)

    It listens while its `with` block, or `start` to `stop`, lasts. An answer is known by its text; where two questions
    had the same answer, by the question too. Marks of several evaluators on one answer: the lowest counts.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self._answers: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()  # answer -> (asked, decision id)
        self._marks: OrderedDict[str, dict[str, float]] = OrderedDict()  # decision id -> evaluator -> quality
        self._lock = threading.Lock()
        self._ear = _EventListener(recorder=self)

    # ------------------------------------------------------------------------------------------------------- listening

    def start(self) -> None:
        """Listens to every LLM of this process from now on."""
        dispatcher = get_dispatcher()
        if self._ear not in dispatcher.event_handlers:
            dispatcher.add_event_handler(self._ear)

    def stop(self) -> None:
        """Listens no longer; what was heard is kept."""
        dispatcher = get_dispatcher()
        dispatcher.event_handlers = [each for each in dispatcher.event_handlers if each is not self._ear]

    def __enter__(self) -> EvaluationRecorder:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def heard(self, asked: str, answer: str, decision_id: str) -> None:
        """Remembers an answer."""
        with self._lock:
            self._answers.setdefault(answer.strip(), []).append((asked, decision_id))
            self._answers.move_to_end(answer.strip())
            while len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)

    def decisions_of(self, response: Any, query: str | None = None) -> tuple[str, ...]:
        """The decisions behind a response (of a query or chat engine, an LLM, or its text): that of its last answer,
        and that of the selector that led to it."""
        selected = (getattr(response, "metadata", None) or {}).get("selector_result")
        found = [getattr(each, "decision_id", None) for each in getattr(selected, "selections", ())]
        told = (getattr(response, "additional_kwargs", None) or {}).get("decision_id")
        found.append(told or self._behind(_text_of(response), query))
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def _behind(self, answer: str, query: str | None) -> str | None:
        with self._lock:
            known = self._answers.get(answer.strip(), [])
            fitting = [decision for asked, decision in known if query is not None and query in asked]
            said = fitting or [decision for _, decision in known]
            return said[-1] if said else None

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
        """Labels the decisions behind a response with what an evaluation says of it; how many were labelled.

        `scale`: the lowest and the highest score. An invalid evaluation labels none. Raises `InputError` for an answer
        that was not heard, and for a score outside the scale.
        """
        quality = _quality(result, scale)
        if quality is None:
            return 0
        decisions = self.decisions_of(response, query if query is not None else result.query)
        if not decisions:
            raise InputError(
                "this response is no answer of eccos that was heard here; ask within `with recorder:`, or after "
                "recorder.start()"
            )
        for decision_id in decisions:
            with self._lock:
                marks = self._marks.setdefault(decision_id, {})
                marks[evaluator] = quality
                lowest = min(marks.values())
                while len(self._marks) > REMEMBERED_ANSWERS:
                    self._marks.popitem(last=False)
            self.router.record(decision_id, lowest)
        return len(decisions)

    def recording(self, evaluator: BaseEvaluator, scale: tuple[float, float] | None = None) -> RecordingEvaluator:
        """The same evaluator, that also records what it finds. For `BatchEvalRunner` and wherever evaluators go.

        `scale`: the lowest and the highest score; None: 1 to 5 for correctness, 0 to 1 for all others.
        """
        if scale is None:
            scale = CORRECTNESS if isinstance(evaluator, CorrectnessEvaluator) else (0.0, 1.0)
        return RecordingEvaluator(self, evaluator, scale)


class RecordingEvaluator(BaseEvaluator):
    """Evaluates as another evaluator does, and hands every result to an `EvaluationRecorder`."""

    def __init__(self, recorder: EvaluationRecorder, evaluator: BaseEvaluator, scale: tuple[float, float]) -> None:
        self.recorder = recorder
        self.evaluator = evaluator
        self.scale = scale

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"evaluator": self.evaluator}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Its prompts are those of the evaluator, a module of its own."""

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """The evaluator's result for the text of a response, recorded."""
        result = await self.evaluator.aevaluate(query=query, response=response, contexts=contexts, **kwargs)
        self._record(response, result, query)
        return result

    def evaluate_response(self, query: str | None = None, response: Any = None, **kwargs: Any) -> EvaluationResult:
        """The evaluator's result for a response, recorded."""
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


class _EventListener(BaseEventHandler):
    recorder: Any

    @classmethod
    def class_name(cls) -> str:
        return "EccosEvaluationRecorder"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Hears the end of every call of an LLM."""
        if isinstance(event, LLMChatEndEvent):
            asked = "\n".join(message.content or "" for message in event.messages)
        elif isinstance(event, LLMCompletionEndEvent):
            asked = event.prompt
        else:
            return
        decision_id = event.response.additional_kwargs.get("decision_id") if event.response else None
        if decision_id is not None:
            self.recorder.heard(asked, _text_of(event.response), decision_id)


def _text_of(response: Any) -> str:
    if isinstance(response, ChatResponse):
        return response.message.content or ""
    return response.text if isinstance(response, CompletionResponse) else str(response)


def _quality(result: EvaluationResult, scale: tuple[float, float]) -> float | None:
    """A score on its scale, else whether it passed -> quality in [0, 1]; None for an evaluation that says nothing."""
    lowest, highest = scale
    if not highest > lowest:
        raise InputError(f"a scale from {lowest} to {highest} has no length; the highest must be above the lowest")
    if result.invalid_result:
        return None
    if result.score is None:
        return None if result.passing is None else float(result.passing)
    if not lowest <= result.score <= highest:
        raise InputError(
            f"score {result.score} is outside the scale from {lowest} to {highest}; say recording(..., scale=...)"
        )
    return (result.score - lowest) / (highest - lowest)
