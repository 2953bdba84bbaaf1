"""Turn feedback into labels: what people, evaluators and LangSmith say of an answer joins its decision."""

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
from eccos_integrations._shared.scores import ScoreScale

MAX_RUNS = 100_000  # the oldest are forgotten first


class FeedbackRecorder(BaseCallbackHandler):
    """Remember which decisions were made in which run, and turn feedback on a run into `router.record`.

        recorder = FeedbackRecorder(model.router)
        chain.invoke(question, config={"callbacks": [recorder], "run_id": run_id})
        recorder.record_feedback({"run_id": run_id, "key": "helpful", "score": 1})
        (prompt | model | recorder.scored_by(evaluator) | parser).invoke(question)

    `lowest` and `highest` are the ends of your scale of scores. They become qualities in [0, 1]. Only feedback under
    one of `keys` counts as quality (None: all). Feedback on a run counts for every answer in it, at any depth. Raises
    `InputError` when `highest` is not above `lowest`.
    """

    def __init__(
        self, router: Router, *, lowest: float = 0.0, highest: float = 1.0, keys: frozenset[str] | None = None
    ) -> None:
        self.router = router
        self._scale = ScoreScale(lowest, highest, set_by="FeedbackRecorder(lowest=..., highest=...)")
        self._keys = keys
        self._parents: OrderedDict[UUID, UUID | None] = OrderedDict()
        self._decisions: OrderedDict[UUID, list[str]] = OrderedDict()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------------------- listening

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember a run. The metadata of a `route_to` branch says which decision led to it."""
        self._start_run(run_id, parent_run_id)
        self._read_metadata(run_id, kwargs.get("metadata"))

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Remember a call of a model."""
        self._start_run(run_id, parent_run_id)
        self._read_metadata(run_id, kwargs.get("metadata"))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember the decision of an `EccosRouter`."""
        if isinstance(outputs, Decision):
            self._add_decision(run_id, outputs.id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember the decision behind an answer of `ChatEccos`."""
        for generation in (each for prompt in response.generations for each in prompt):
            if isinstance(generation, ChatGeneration) and (found := find_decision_id(generation.message)):
                self._add_decision(run_id, found)

    def _start_run(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        with self._lock:
            self._parents[run_id] = parent_run_id
            while len(self._parents) > MAX_RUNS:
                self._decisions.pop(self._parents.popitem(last=False)[0], None)

    def _read_metadata(self, run_id: UUID, metadata: Mapping[str, Any] | None) -> None:
        if metadata and "eccos_decision_id" in metadata:
            self._add_decision(run_id, metadata["eccos_decision_id"])

    def _add_decision(self, run_id: UUID, decision_id: str) -> None:
        with self._lock:
            run: UUID | None = run_id
            while run is not None:
                known = self._decisions.setdefault(run, [])
                if decision_id not in known:
                    known.append(decision_id)
                run = self._parents.get(run)

    # ------------------------------------------------------------------------------------------------------- recording

    def decisions_of(self, run_id: UUID | str) -> tuple[str, ...]:
        """Return the ids of the decisions made in a run, at any depth, in order."""
        with self._lock:
            return tuple(self._decisions.get(UUID(str(run_id)), ()))

    def record_feedback(self, feedback: Any) -> int:
        """Record LangSmith-style feedback: a mapping or object with `run_id`, `score` and, where you gave keys, `key`.

        Returns how many decisions were labelled. Feedback without a score, or under another key, labels none. Raises
        `InputError` for a run without an answer of eccos, and for a score outside the scale.
        """
        run_id, score = (
            _read_field(feedback, "run_id") or _read_field(feedback, "target_run_id"),
            _read_field(feedback, "score"),
        )
        if run_id is None:
            raise InputError("feedback has no run_id. Give the id of the run, or use record(message, score).")
        if self._keys is not None and _read_field(feedback, "key") not in self._keys:
            return 0
        if score is None:
            return 0
        decisions = self.decisions_of(run_id)
        if not decisions:
            raise InputError(
                f"run {run_id} has no answer of eccos that is known here. Was this recorder among its callbacks? "
                "Run it with config={'callbacks': [recorder]}."
            )
        quality = self._to_quality(score)
        for decision_id in decisions:
            self.router.record(decision_id, quality)
        return len(decisions)

    def record(self, message: BaseMessage, score: Any) -> None:
        """Record what an answer is worth: a score, a mapping or object with `score`, or several under `results`.

        Raises `InputError` for a message that is no answer of eccos, and for a score outside the scale.
        """
        decision_id = find_decision_id(message)
        if decision_id is None:
            raise InputError(
                "this message has no decision_id in its response_metadata, so it is no answer of ChatEccos. "
                "Record the message that ChatEccos returned."
            )
        for each in _list_scores(score):
            if self._keys is None or _read_field(each, "key") is None or _read_field(each, "key") in self._keys:
                self.router.record(decision_id, self._to_quality(each))

    def scored_by(self, evaluator: Callable[[BaseMessage], Any]) -> Runnable[BaseMessage, BaseMessage]:
        """Return a step for a chain, after the model. It records what `evaluator` says of an answer and passes it on.

        The evaluator returns a score, a mapping or object with `score` (LangSmith's `EvaluationResult`), or several of
        them under `results`. None records nothing. The evaluator may be asynchronous.
        """

        def score(message: BaseMessage) -> BaseMessage:
            verdict = evaluator(message)
            if inspect.isawaitable(verdict):
                raise InputError("this evaluator is asynchronous. Call the chain with ainvoke, astream or abatch.")
            self.record(message, verdict)
            return message

        async def ascore(message: BaseMessage) -> BaseMessage:
            verdict = evaluator(message)
            self.record(message, await verdict if inspect.isawaitable(verdict) else verdict)
            return message

        return RunnableLambda(score, afunc=ascore, name="scored_by")

    def _to_quality(self, score: Any) -> float:
        """Return the quality in [0, 1] of a score on the scale. True is 1, False is 0."""
        value = score if isinstance(score, bool | int | float) else _read_field(score, "score")
        if not isinstance(value, bool | int | float):
            raise InputError(f"a score is a number, True or False. Got {value!r}.")
        if isinstance(value, bool):
            return float(value)
        return self._scale.to_quality(value)


def find_decision_id(message: BaseMessage) -> str | None:
    """Return the id of the decision behind an answer, a cached one too. None for a message that is none of eccos."""
    metadata = getattr(message, "response_metadata", {})
    found = metadata.get("decision_id") or metadata.get("cached_decision_id")
    return found if isinstance(found, str) else None


def _read_field(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _list_scores(verdict: Any) -> list[Any]:
    """Return the scores of a verdict, one by one. None, and results without a score, give none."""
    several = _read_field(verdict, "results")
    each = several if isinstance(several, list) else [verdict]
    return [one for one in each if one is not None and (isinstance(one, bool | int | float) or _has_score(one))]


def _has_score(one: Any) -> bool:
    """Tell whether a result has a score. One that has no `score` at all is refused later, with its value."""
    known = "score" in one if isinstance(one, Mapping) else hasattr(one, "score")
    return not known or _read_field(one, "score") is not None
