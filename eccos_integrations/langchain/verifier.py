"""`EccosVerifier`: how good an answer is, by a reward model, as a Runnable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, PrivateAttr, model_validator

from eccos_core.grading.reward import RewardGrader
from eccos_core.io.answers import Answer
from eccos_integrations._shared.errors import InvalidRequestError
from eccos_integrations._shared.reward import check_threshold, resolve_grader


class Verification(TypedDict):
    """What a verifier finds. `score` is in [0, 1]. It `passed` where the score is at least the threshold."""

    score: float
    passed: bool


class EccosVerifier(RunnableSerializable[Any, Verification]):
    """Score an answer with a reward model of `eccos fit-reward`. No model is called, and no reference is needed.

        verifier = EccosVerifier(config="eccos.yaml", reward="./reward")
        verifier.invoke({"question": "What is 17 * 23?", "answer": "391"})  # {"score": 0.93, "passed": True}

    The input is a dictionary with `question` and `answer` (a text or a message), or messages that end with an answer,
    or a LangGraph state with `messages`. Of an answer of `ChatEccos` it knows the model. Else you may name `model`.

    `reward` is the folder. Without it, `eccos.labels.reward` of the configuration names it. `threshold` is the least
    score that passes. Raises `ArtifactError` for a reward model of another pool or encoder.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    config: str | Path | None = None
    reward: str | Path | None = None
    threshold: float = 0.5
    grader: Any = None
    """A `RewardGrader` that you built yourself, in place of `config` and `reward`."""
    _grader: RewardGrader = PrivateAttr()

    @model_validator(mode="after")
    def _load(self) -> EccosVerifier:
        check_threshold("EccosVerifier", self.threshold)
        self._grader = resolve_grader("EccosVerifier", self.config, self.reward, self.grader)
        return self

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Verification:  # noqa: A002
        """Score one answer."""
        return self._call_with_config(self._verify, input, config, **kwargs)

    def _verify(self, given: Any) -> Verification:
        score = self._grader.grade_answer(_read_answer(given))
        return {"score": score, "passed": score >= self.threshold}


def _read_answer(given: Any) -> Answer:
    """Read question and answer. Raises `InvalidRequestError` where one of them is missing."""
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, Mapping) and "messages" in given:
        given = given["messages"]
    if isinstance(given, Mapping):
        question, answer = given.get("question"), given.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str | BaseMessage):
            raise InvalidRequestError(
                'EccosVerifier reads {"question": "...", "answer": "..."}, or messages that end with an answer. '
                f"This dictionary has {', '.join(map(repr, given)) or 'no key'}."
            )
        return _answer(question, answer, given.get("model"))
    if isinstance(given, Sequence) and not isinstance(given, str):
        messages = convert_to_messages(given)
        asked = [message for message in messages[:-1] if isinstance(message, HumanMessage)]
        if messages and asked and isinstance(messages[-1], AIMessage):
            return _answer(str(asked[-1].text), messages[-1], None)
    raise InvalidRequestError(
        "EccosVerifier needs the question beside the answer. Give it "
        '{"question": "...", "answer": message}, or messages that end with an answer.'
    )


def _answer(question: str, answer: str | BaseMessage, model: Any) -> Answer:
    if isinstance(answer, str):
        return Answer(question, str(model or ""), answer)
    metadata = getattr(answer, "response_metadata", {})
    tokens = (getattr(answer, "usage_metadata", None) or {}).get("output_tokens")
    reason = metadata.get("finish_reason")
    named = model or metadata.get("model_name") or ""
    return Answer(question, str(named), str(answer.text), tokens, None if reason == "stop" else reason)
