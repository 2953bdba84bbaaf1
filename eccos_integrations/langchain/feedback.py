"""Feedback becomes labels: what people, evaluators and LangSmith say of an answer is recorded with its decision."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable, RunnableLambda

from eccos_core.domain import Decision
from eccos_core.errors import InputError
from eccos_core.router import Router

REMEMBERED_RUNS = 100_000  # the oldest are forgotten first


class FeedbackRecorder(BaseCallbackHandler):
    """Knows which decisions were made in which run, and turns feedback on a run into `router.record`.

        recorder = FeedbackRecorder(model.router)
        chain.invoke(question, config={"callbacks": [recorder], "run_id": run_id})
        recorder.record_feedback({"run_id": run_id, "key": "helpful", "score": 1})
        (prompt | model | recorder.scored_by(evaluator) | parser).invoke(question)

    `lowest` and `highest` are the ends of the scale that scores are on; qualities are in [0, 1]. `keys`: only feedback
    under these keys is a matter of quality (None: all). Feedback on a run counts for every answer in it, at any depth.
    """

    def __init__(
        self, router: Router, *, lowest: float = 0.0, highest: float = 1.0, keys: frozenset[str] | None = None
    ) -> None:
        if not highest > lowest:
            raise InputError(f"a scale from {lowest} to {highest} has no length; highest must be above lowest")
        self.router = router
        self._lowest, self._highest, self._keys = lowest, highest, keys
        self._parents: OrderedDict[UUID, UUID | None] = OrderedDict()
        self._decisions: OrderedDict[UUID, list[str]] = OrderedDict()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------------------- listening

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A run begins; a branch of `route_to` says which decision led to it."""
        self._begun(run_id, parent_run_id)
        self._routed(run_id, kwargs.get("metadata"))

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A call of a model begins."""
        self._begun(run_id, parent_run_id)
        self._routed(run_id, kwargs.get("metadata"))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The run of an `EccosRouter` ends with its decision."""
        if isinstance(outputs, Decision):
            self._decided(run_id, outputs.id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """A call of `ChatEccos` ends with an answer that names its decision."""
        for generation in (each for prompt in response.generations for each in prompt):
            if isinstance(generation, ChatGeneration) and (found := decision_of(generation.message)):
                self._decided(run_id, found)

    def _begun(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        with self._lock:
            self._parents[run_id] = parent_run_id
            while len(self._parents) > REMEMBERED_RUNS:
                self._decisions.pop(self._parents.popitem(last=False)[0], None)

    def _routed(self, run_id: UUID, metadata: Mapping[str, Any] | None) -> None:
        if metadata and "eccos_decision_id" in metadata:
            self._decided(run_id, metadata["eccos_decision_id"])

    def _decided(self, run_id: UUID, decision_id: str) -> None:
        with self._lock:
            run: UUID | None = run_id
            while run is not None:
                known = self._decisions.setdefault(run, [])
                if decision_id not in known:
                    known.append(decision_id)
                run = self._parents.get(run)

    # ------------------------------------------------------------------------------------------------------- recording

    def decisions_of(self, run_id: UUID | str) -> tuple[str, ...]:
        """The decisions made in a run, at any depth, in order."""
        with self._lock:
            return tuple(self._decisions.get(UUID(str(run_id)), ()))

    def record_feedback(self, feedback: Any) -> int:
        """Records LangSmith-style feedback: a mapping or object with `run_id` and `score` (`key` where keys are given).

        Returns how many decisions were labelled: none for feedback without a score, or under another key. Raises
        `InputError` for a run without an answer of eccos, and for a score outside the scale.
        """
        run_id, score = _get(feedback, "run_id") or _get(feedback, "target_run_id"), _get(feedback, "score")
        if run_id is None:
            raise InputError("feedback has no run_id; give the id of the run, or use record(message, score)")
        if self._keys is not None and _get(feedback, "key") not in self._keys:
            return 0
        if score is None:
            return 0
        decisions = self.decisions_of(run_id)
        if not decisions:
            raise InputError(
                f"run {run_id} has no answer of eccos that is known here; was this recorder among its callbacks?"
            )
        quality = self._quality(score)
        for decision_id in decisions:
            self.router.record(decision_id, quality)
        return len(decisions)

    def record(self, message: BaseMessage, score: Any) -> None:
        """Records what an answer is worth. Raises `InputError` for a message that is no answer of eccos."""
        decision_id = decision_of(message)
        if decision_id is None:
            raise InputError("this message has no decision_id in its response_metadata: it is no answer of ChatEccos")
        for each in _scores(score):
            if self._keys is None or _get(each, "key") is None or _get(each, "key") in self._keys:
                self.router.record(decision_id, self._quality(each))

    def scored_by(self, evaluator: Callable[[BaseMessage], Any]) -> Runnable[BaseMessage, BaseMessage]:
        """A step for a chain, after the model: hands the answer on, and records what `evaluator` says of it.

        It says a score, a mapping or an object with `score` (LangSmith's `EvaluationResult`), several of them under
        `results`, or None, which records nothing. It may be asynchronous.
        """

        def score(message: BaseMessage) -> BaseMessage:
            said = evaluator(message)
            if inspect.isawaitable(said):
                raise InputError("this evaluator is asynchronous: use ainvoke, astream or abatch")
            self.record(message, said)
            return message

        async def ascore(message: BaseMessage) -> BaseMessage:
            said = evaluator(message)
            self.record(message, await said if inspect.isawaitable(said) else said)
            return message

        return RunnableLambda(score, afunc=ascore, name="scored_by")

    def _quality(self, score: Any) -> float:
        """A score on its scale -> quality in [0, 1]."""
        value = score if isinstance(score, bool | int | float) else _get(score, "score")
        if not isinstance(value, bool | int | float):
            raise InputError(f"a score is a number, True or False, got {value!r}")
        if isinstance(value, bool):
            return float(value)
        if not self._lowest <= value <= self._highest:
            raise InputError(
                f"score {value} is outside the scale from {self._lowest} to {self._highest}; "
                "say FeedbackRecorder(lowest=..., highest=...)"
            )
        return (value - self._lowest) / (self._highest - self._lowest)


def decision_of(message: BaseMessage) -> str | None:
    """The id of the decision that led to an answer; None for a message that is no answer of eccos."""
    found = getattr(message, "response_metadata", {}).get("decision_id")
    return found if isinstance(found, str) else None


def _get(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _scores(said: Any) -> list[Any]:
    """What an evaluator said, one by one; nothing for None and for results without a score."""
    several = _get(said, "results")
    each = several if isinstance(several, list) else [said]
    return [one for one in each if one is not None and (isinstance(one, bool | int | float) or _said(one))]


def _said(one: Any) -> bool:
    """Whether it has a score. What has neither score nor number is refused later, by name."""
    known = "score" in one if isinstance(one, Mapping) else hasattr(one, "score")
    return not known or _get(one, "score") is not None
