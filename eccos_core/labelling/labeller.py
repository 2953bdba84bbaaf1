"""Label a share of the answers in the background, with a judge, and ask a second model in the shadow.

    answer ─▶ bounded queue ─▶ one thread: judge it ─▶ label
                                          └─▶ another model answers, judge that ─▶ outcome of the history

An answer is graded alone and without its model's name, so neither order nor name can sway the judge.
"""

from __future__ import annotations

import logging
import queue
import random
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eccos_core.domain import Completion, ConversationView, Decision, Model, Request
from eccos_core.errors import BackendError, EccosError, GradingError, InputError, Overloaded, UnknownModelError
from eccos_core.grading.judge import JudgeGrader
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.tokens import conversation_text, count_tokens
from eccos_core.labelling.daily_budget import DailyBudget
from eccos_core.protocols import AnswerLabels, Backend, Workload
from eccos_core.routing.pricing import worst_usd
from eccos_core.routing.signals import is_broken_json

MAX_WAITING = 1000  # answers that wait to be looked at. More are left out and counted
_log = logging.getLogger("eccos.labelling")


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Grade a `share` of the answers, in [0, 1], with a `model` of the pool. Its own answers are never graded."""

    model: str
    share: float
    budget: DailyBudget


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """Let one of `models` also answer a `share` of the requests, in [0, 1]."""

    models: tuple[str, ...]
    share: float
    budget: DailyBudget


@dataclass(frozen=True, slots=True)
class LabellerStatus:
    """What was done since the start. `left_out`: answers that found the queue full. Spending is of this UTC day."""

    judged: int = 0
    shadowed: int = 0
    failed: int = 0
    left_out: int = 0
    judge_spent_usd: float = 0.0
    shadow_spent_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    request: Request
    decision: Decision
    completion: Completion
    labels: AnswerLabels
    judged: bool
    broken: bool
    shadow: str | None


class BackgroundLabeller:
    """Looks at answers in a thread of its own (implements `AnswerObserver`).

    Texts stay in memory, and only until they were graded. A judge that fails or answers nonsense gives no label, and is
    counted. When a budget is spent, nothing is asked until the next UTC day. `models`: the pool. `backend` calls them.
    `workload`: a shadow call takes a free slot, and is left out where there is none. `broken_json`: the label of an
    answer that is no JSON although the request asked for it.
    """

    def __init__(
        self,
        models: Sequence[Model],
        backend: Backend,
        workload: Workload,
        *,
        judge: JudgeSettings | None = None,
        shadow: ShadowSettings | None = None,
        broken_json: float | None = None,
        view: ConversationView = "last_user",
        seed: int | None = None,
    ) -> None:
        self._models: Mapping[str, Model] = {model.name: model for model in models}
        if shadow is not None and judge is None:
            raise InputError("shadow answers need a judge: set eccos.labels.judge")
        named = [*([judge.model] if judge else ()), *(shadow.models if shadow else ())]
        for name in named:
            if name not in self._models:
                raise UnknownModelError(name, list(self._models))
        self.judge, self.shadow, self.broken_json = judge, shadow, broken_json
        self._grader = JudgeGrader(judge.model, backend) if judge else None
        self._backend, self._workload, self._view = backend, workload, view
        self._draw = random.Random(seed)  # noqa: S311 - a sample is no secret
        self._counts = {"judged": 0, "shadowed": 0, "failed": 0, "left_out": 0}
        self._waiting: queue.Queue[_Answer | None] = queue.Queue(MAX_WAITING)
        self._guard = ProcessGuard("the labeller of answers")
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="eccos-labelling", daemon=True)
        self._worker.start()

    def observe_answer(
        self, request: Request, decision: Decision, completion: Completion, labels: AnswerLabels
    ) -> None:
        """See `AnswerObserver`. A forked child looks at nothing."""
        if self._closed or self._guard.is_forked or not completion.text:
            return
        shadow, judged = self._choose_shadow(decision, completion), self._choose_judged(completion)
        broken = self.broken_json is not None and is_broken_json(request, completion)
        if shadow is None and not judged and not broken:
            return
        try:
            self._waiting.put_nowait(_Answer(request, decision, completion, labels, judged, broken, shadow))
        except queue.Full:
            self._counts["left_out"] += 1

    def status(self) -> LabellerStatus:
        """Return what was done since the start."""
        return LabellerStatus(
            **self._counts,
            judge_spent_usd=self.judge.budget.spent_usd if self.judge else 0.0,
            shadow_spent_usd=self.shadow.budget.spent_usd if self.shadow else 0.0,
        )

    def wait(self) -> None:
        """Wait until every answer so far was looked at."""
        self._waiting.join()

    def close(self) -> None:
        """See `AnswerObserver`. Waits for the call that is under way."""
        if self._closed or self._guard.is_forked:
            return
        self._closed = True
        while not self._waiting.empty():
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                break
            self._waiting.task_done()
        self._waiting.put(None)
        if self._worker is not threading.current_thread():
            self._worker.join()

    def _choose_judged(self, completion: Completion) -> bool:
        judge = self.judge
        return judge is not None and completion.model != judge.model and self._draw.random() < judge.share

    def _choose_shadow(self, decision: Decision, completion: Completion) -> str | None:
        """Return the other model to ask, one that may answer this request, or None."""
        if self.shadow is None or self.judge is None or self._draw.random() >= self.shadow.share:
            return None
        allowed = {decision.model, *decision.fallbacks} - {completion.model, self.judge.model}
        possible = [name for name in self.shadow.models if name in allowed]
        return self._draw.choice(possible) if possible else None

    def _work(self) -> None:
        while (answer := self._waiting.get()) is not None:
            with self._counted_failure():
                self._look_at(answer)
            self._waiting.task_done()
        self._waiting.task_done()

    @contextmanager
    def _counted_failure(self) -> Iterator[None]:
        """Count an error and go on. Its message may quote the request, so the log names its kind only."""
        try:
            yield
        except (EccosError, OSError, sqlite3.Error) as error:
            self._counts["failed"] += 1
            _log.warning("an answer could not be labelled: %s", type(error).__name__)

    def _look_at(self, answer: _Answer) -> None:
        if answer.broken and self.broken_json is not None:
            answer.labels.record(self.broken_json, "signal")
        question, other = conversation_text(answer.request.messages, self._view), None
        if answer.shadow is not None:
            with self._counted_failure():
                other = self._ask_shadow(answer, answer.shadow)
        if answer.judged or other is not None:
            quality = self._grade(question, answer.completion.text)
            if quality is not None:
                answer.labels.record(quality, "judge")
        if other is not None:
            quality = self._grade(question, other.text)
            if quality is not None:
                answer.labels.record_other(other, quality)

    def _ask_shadow(self, answer: _Answer, model: str) -> Completion | None:
        assert self.shadow is not None
        reserved = worst_usd(self._models[model], answer.request, count_tokens(answer.request.messages))
        if not self.shadow.budget.reserve(reserved):
            return None
        paid = 0.0
        try:
            with self._workload.hold(model):
                completion = self._backend.complete(model, answer.request.addressed_to(model))
            paid = completion.cost_usd
        except Overloaded:
            return None  # its slots are for requests that somebody waits for
        except BackendError as error:
            paid = reserved if error.kind.billed else 0.0
            raise
        finally:
            self.shadow.budget.settle(reserved, paid)
        self._counts["shadowed"] += 1
        return completion

    def _grade(self, question: str, text: str) -> float | None:
        """Return the judge's score in [0, 1]. None when the day's money is spent."""
        assert self.judge is not None
        assert self._grader is not None
        request = self._grader.request(text, None, question)
        reserved = worst_usd(self._models[self.judge.model], request, count_tokens(request.messages))
        if not self.judge.budget.reserve(reserved):
            return None
        paid = reserved  # a call that fails may be billed
        try:
            verdict = self._grader.judge(text, None, question)
            paid = verdict.cost_usd
        except GradingError as error:
            if isinstance(error.__cause__, BackendError) and not error.__cause__.kind.billed:
                paid = 0.0
            raise
        finally:
            self.judge.budget.settle(reserved, paid)
        self._counts["judged"] += 1
        return verdict.score
