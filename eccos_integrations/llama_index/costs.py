"""What LlamaIndex's answers cost: a handler that sums USD and tokens, and the sums in each response's metadata."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index_instrumentation import get_dispatcher
from pydantic import PrivateAttr

from eccos_integrations._shared.messages import PROVIDER


@dataclass(slots=True)
class AnswerTotals:
    """Sums over answers. `cost_usd` is in USD. `answers` counts answers, or the calls of one model."""

    cost_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answers: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, cost_usd: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Add one answer."""
        self.cost_usd += cost_usd
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.answers += 1


@dataclass(slots=True)
class CostSums:
    """The sums of all answers, and of each model. A plan's calls count for the models that were called."""

    total: AnswerTotals = field(default_factory=AnswerTotals)
    per_model: dict[str, AnswerTotals] = field(default_factory=dict)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Add an answer, as `raw["eccos"]` describes it."""
        told = answer["cost_usd"], answer["prompt_tokens"], answer["completion_tokens"]
        self.total.add(*told)
        calls = answer.get("calls")
        if not calls:
            self.per_model.setdefault(answer["model"], AnswerTotals()).add(*told)
            return
        for call in calls:
            model = self.per_model.setdefault(call["model"], AnswerTotals())
            model.add(call["cost_usd"], call["input_tokens"], call["output_tokens"])


def read_answer(event: Any) -> dict[str, Any] | None:
    """Return what eccos says of the answer that an event ends with. None for another event, or another LLM."""
    if not isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent) or event.response is None:
        return None
    raw = event.response.raw
    found = raw.get(PROVIDER) if isinstance(raw, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else None


class CostCountingHandler(BaseEventHandler):
    """Sum what the answers of eccos cost, as `TokenCountingHandler` counts tokens.

        with CostCountingHandler() as costs:
            engine.query("What is the capital of Peru?")
        print(costs.total_cost_usd, costs.total_token_count, costs.per_model)

    It counts inside its `with` block, or from `start` to `stop`. It hears every `EccosLLM` of the process, whichever
    thread or task it runs in. A failed call and a stream that nobody read to its end are not counted.
    """

    _sums: CostSums = PrivateAttr(default_factory=CostSums)
    _changing: Any = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this handler."""
        return "EccosCostCountingHandler"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Add the answer of every finished call."""
        answer = read_answer(event)
        if answer is not None:
            with self._changing:
                self._sums.add(answer)

    # ------------------------------------------------------------------------------------------------------- listening

    def start(self) -> None:
        """Count from now on. A second start changes nothing."""
        dispatcher = get_dispatcher()
        if not any(each is self for each in dispatcher.event_handlers):
            dispatcher.add_event_handler(self)

    def stop(self) -> None:
        """Stop counting, and keep the sums."""
        dispatcher = get_dispatcher()
        dispatcher.event_handlers = [each for each in dispatcher.event_handlers if each is not self]

    def __enter__(self) -> CostCountingHandler:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def reset_counts(self) -> None:
        """Set all sums to zero."""
        with self._changing:
            self._sums = CostSums()

    # ------------------------------------------------------------------------------------------------------------ sums

    @property
    def total_cost_usd(self) -> float:
        """What all answers cost, in USD."""
        return self._sums.total.cost_usd

    @property
    def prompt_token_count(self) -> int:
        """Prompt tokens of all answers."""
        return self._sums.total.prompt_tokens

    @property
    def completion_token_count(self) -> int:
        """Completion tokens of all answers."""
        return self._sums.total.completion_tokens

    @property
    def total_token_count(self) -> int:
        """Prompt and completion tokens of all answers."""
        return self._sums.total.total_tokens

    @property
    def answer_count(self) -> int:
        """How many answers were counted."""
        return self._sums.total.answers

    @property
    def per_model(self) -> dict[str, AnswerTotals]:
        """A copy of the sums of each model that was called, by its name."""
        with self._changing:
            return {
                name: AnswerTotals(each.cost_usd, each.prompt_tokens, each.completion_tokens, each.answers)
                for name, each in self._sums.per_model.items()
            }
