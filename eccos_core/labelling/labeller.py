"""Label answers in the background, with a judge or a reward model, and ask a second model in the shadow.

    answer ─▶ bounded queue ─▶ one thread: grade it ─▶ label
                                          └─▶ another model answers, grade that ─▶ outcome of the history

A share of the answers goes to the judge, and the reward model grades the rest.

An answer is graded alone and without its model's name, so neither order nor name can sway the judge.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eccos_core.domain import Completion, ConversationView, Decision, LabelSource, Model, Request
from eccos_core.errors import BackendError, GradingError, InputError, Overloaded, UnknownModelError
from eccos_core.grading.judge import JudgeGrader
from eccos_core.grading.reward import RewardModel
from eccos_core.io.answers import Answer
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.tokens import conversation_text, count_tokens
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
    rewarded: int = 0
    shadowed: int = 0
    failed: int = 0
    left_out: int = 0
    judge_spent_usd: float = 0.0
    shadow_spent_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class _Waiting:
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
    `reward` grades what no judge graded, except an answer that `broken_json` labels.
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
        reward: RewardModel | None = None,
        shadow: ShadowSettings | None = None,
        broken_json: float | None = None,
        view: ConversationView = "last_user",
        seed: int | None = None,
    ) -> None:
        self._models: Mapping[str, Model] = {model.name: model for model in models}
        if shadow is not None and judge is None and reward is None:
            raise InputError("shadow answers need a grader: set eccos.labels.judge or eccos.labels.reward")
        named = [*([judge.model] if judge else ()), *(shadow.models if shadow else ())]
        for name in named:
            if name not in self._models:
                raise UnknownModelError(name, list(self._models))
        self.judge, self.reward, self.shadow, self.broken_json = judge, reward, shadow, broken_json
        self._grader = JudgeGrader(judge.model, backend) if judge else None
        self._backend, self._workload, self._view = backend, workload, view
        self._draw = random.Random(seed)  # noqa: S311 - a sample is no secret
        self._counts = {"judged": 0, "rewarded": 0, "shadowed": 0, "failed": 0, "left_out": 0}
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(MAX_WAITING)
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
        if shadow is None and not judged and not broken and self.reward is None:
            return
        try:
            self._waiting.put_nowait(_Waiting(request, decision, completion, labels, judged, broken, shadow))
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
        if self.shadow is None or self._draw.random() >= self.shadow.share:
            return None
        allowed = {decision.model, *decision.fallbacks} - {completion.model}
        if self.judge is not None:
            allowed.discard(self.judge.model)
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
        except Exception as error:  # noqa: BLE001 - whatever an encoder or a judge raises, the next answer is looked at
            self._counts["failed"] += 1
            _log.warning("an answer could not be labelled: %s", type(error).__name__)

    def _look_at(self, answer: _Waiting) -> None:
        if answer.broken and self.broken_json is not None:
            answer.labels.record(self.broken_json, "signal")
        question, other = conversation_text(answer.request.messages, self._view), None
        if answer.shadow is not None:
            with self._counted_failure():
                other = self._ask_shadow(answer, answer.shadow)
        judged = self.judge is not None and (answer.judged or other is not None)
        if grade := self._grade(question, answer.completion, judged, rewarded=not answer.broken):
            answer.labels.record(*grade)
        if other is not None and (grade := self._grade(question, other, judged, rewarded=True)):
            answer.labels.record_other(other, grade[0])

    def _ask_shadow(self, answer: _Waiting, model: str) -> Completion | None:
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

    def _grade(
        self, question: str, completion: Completion, judged: bool, *, rewarded: bool
    ) -> tuple[float, LabelSource] | None:
        """Return the quality and who says so: the judge, or else the reward model. None where neither does."""
        if judged:
            with self._counted_failure():
                quality = self._ask_judge(question, completion.text)
                if quality is not None:
                    return quality, "judge"
        if self.reward is None or not rewarded:
            return None
        answer = Answer(question, completion.model, completion.text, completion.output_tokens, completion.finish_reason)
        reward = float(self.reward.score([answer])[0])
        self._counts["rewarded"] += 1
        return reward, "reward"

    def _ask_judge(self, question: str, text: str) -> float | None:
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
