"""Ask a judge within its budget for a day: for the grade of one answer, or which of two answers is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from eccos_core.domain import Completion, Model, Request
from eccos_core.errors import BackendError
from eccos_core.grading.judge import JudgeGrader
from eccos_core.grading.pairwise import Comparison, PairJudge
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.tokens import count_tokens
from eccos_core.protocols import Backend
from eccos_core.routing.pricing import worst_usd

Spend: TypeAlias = Callable[[float], None]  # hears what a call has cost, in USD


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Grade a `share` of the answers, in [0, 1], with a `model` of the pool. Its own answers are never graded.

    `pairs`: also ask which is better, an answer or the shadow answer to the same question. `calibrate`: correct grades
    by the labels that people gave.
    """

    model: str
    share: float
    budget: DailyBudget
    pairs: bool = False
    calibrate: bool = True


class BudgetedJudge:
    """Calls a judge, and pays from its budget. Each method returns None when the rest of the day's money is less.

    A call that fails counts with the most it can have cost where its provider may bill it. A reply that holds no
    verdict is paid, and raises `GradingError`. A call that fails raises `BackendError`.
    """

    def __init__(self, settings: JudgeSettings, model: Model, backend: Backend) -> None:
        self.settings, self._model, self._backend = settings, model, backend
        self._grader, self._pairs = JudgeGrader(model.name, backend), PairJudge(model.name)

    def grade(self, question: str, answer: str, spend: Spend) -> float | None:
        """Return the judge's grade of an answer in [0, 1]."""
        replies = self._ask([self._grader.request(answer, None, question)], spend)
        return None if replies is None else self._grader.read(replies[0], answer, None, question).score

    def compare(self, question: str, first: str, second: str, spend: Spend) -> Comparison | None:
        """Return which answer is better. Both orders are asked, or none."""
        replies = self._ask(self._pairs.requests(question, first, second), spend)
        return None if replies is None else self._pairs.read(question, first, second, (replies[0], replies[1]))

    def _ask(self, requests: Sequence[Request], spend: Spend) -> list[Completion] | None:
        budget = self.settings.budget
        most = [worst_usd(self._model, request, count_tokens(request.messages)) for request in requests]
        if not budget.reserve(sum(most)):
            return None
        replies: list[Completion] = []
        try:
            for request, usd in zip(requests, most, strict=True):
                replies.append(self._pay(request, usd, spend))
        finally:
            budget.settle(sum(most[len(replies) + 1 :]), 0.0)  # what was set aside for calls after one that failed
        return replies

    def _pay(self, request: Request, reserved: float, spend: Spend) -> Completion:
        paid = reserved
        try:
            completion = self._backend.complete(self._model.name, request)
            paid = completion.cost_usd
        except BackendError as error:
            paid = reserved if error.kind.billed else 0.0
            raise
        finally:
            self.settings.budget.settle(reserved, paid)
            if paid > 0:
                spend(paid)
        return completion
