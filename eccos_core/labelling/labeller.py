"""Label answers in the background, with a judge or a reward model, and ask a second model in the shadow.

    answer ─▶ bounded queue ─▶ one thread: grade it ──────────────────────────────▶ label
                                  │                     └─▶ compare both, calibrate ─┤
                                  └─▶ another model answers, grade that ─────────────▶ outcome of the history

A share of the answers goes to the judge, and the reward model grades the rest.

An answer is graded alone and without its model's name, so neither order nor name can sway the judge. With `pairs` the
judge also compares an answer with its shadow answer, in both orders.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from eccos_core.decision_log import BaseDecisionLog
from eccos_core.domain import (
    Completion,
    ConversationView,
    Decision,
    Judgement,
    LabellerStatus,
    LabellingCall,
    LabelSource,
    Model,
    Request,
)
from eccos_core.errors import BackendError, InputError, Overloaded, UnknownModelError
from eccos_core.grading.reward import RewardModel
from eccos_core.io.answers import Answer
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.tokens import conversation_text, count_tokens
from eccos_core.labelling.budgeted_judge import BudgetedJudge, JudgeSettings
from eccos_core.labelling.calibrator import GradeCalibrator
from eccos_core.labelling.pair_labels import reconcile
from eccos_core.packing import model_of
from eccos_core.protocols import AnswerLabels, AnswerObserver, Backend, Workload
from eccos_core.routing.pricing import worst_usd
from eccos_core.routing.signals import is_broken_json

MAX_WAITING = 1000  # answers that wait to be looked at. More are left out and counted
_log = logging.getLogger("eccos.labelling")


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """Let one of `models` also answer a `share` of the requests, in [0, 1]."""

    models: tuple[str, ...]
    share: float
    budget: DailyBudget


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Request
    decision: Decision
    completion: Completion
    labels: AnswerLabels
    judged: bool
    broken: bool
    shadow: str | None


@dataclass(frozen=True, slots=True)
class _Grade:
    """The quality of an answer, and who says so. `preference`: see `Judgement`."""

    quality: float
    source: LabelSource
    compared: float | None = None
    preference: float | None = None


class BackgroundLabeller:
    """Looks at answers in a thread of its own (implements `AnswerObserver`).

    Texts stay in memory, and only until they were graded. A judge that fails or answers nonsense gives no label, and is
    counted. When a budget is spent, nothing is asked until the next UTC day. `models`: the pool. `backend` calls them.
    `reward` grades what no judge graded, except an answer that `broken_json` labels.
    `workload`: a shadow call takes a free slot, and is left out where there is none. `broken_json`: the label of an
    answer that is no JSON although the request asked for it. `log`: where labels of people are found, which correct the
    judge's grades.
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
        log: BaseDecisionLog | None = None,
        seed: int | None = None,
    ) -> None:
        self._models: Mapping[str, Model] = {model.name: model for model in models}
        if shadow is not None and judge is None and reward is None:
            raise InputError("shadow answers need a grader: set eccos.labels.judge or eccos.labels.reward")
        if judge is not None and judge.pairs and shadow is None:
            raise InputError(
                "eccos.labels.judge.pairs compares an answer with its shadow answer: set eccos.shadow, or drop pairs"
            )
        named = [*([judge.model] if judge else ()), *(shadow.models if shadow else ())]
        for name in named:
            if name not in self._models:
                raise UnknownModelError(name, list(self._models))
        self.judge, self.reward, self.shadow, self.broken_json = judge, reward, shadow, broken_json
        self.backend, self.workload, self.view, self.log = backend, workload, view, log
        self._judge = BudgetedJudge(judge, self._models[judge.model], backend) if judge else None
        self._calibrator = GradeCalibrator(log, judge.model) if judge is not None and judge.calibrate else None
        self._draw = random.Random(seed)  # noqa: S311 - a sample is no secret
        self._counts = dict.fromkeys(
            ("judged", "rewarded", "shadowed", "failed", "left_out", "compared", "swayed", "calibrated_by"), 0
        )
        self._paid: dict[LabellingCall, float] = {"judge": 0.0, "shadow": 0.0}
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue()  # bounded in `_add`, so that the end always fits
        self._guard = ProcessGuard("the labeller of answers")
        self._gate = threading.Lock()
        self._closed = False
        self._successor: AnswerObserver | None = None
        self._worker = threading.Thread(target=self._work, name="eccos-labelling", daemon=True)
        self._workers = [self._worker]  # with those of predecessors, whose last call may be under way
        self._worker.start()

    def observe_answer(
        self, request: Request, decision: Decision, completion: Completion, labels: AnswerLabels
    ) -> None:
        """See `AnswerObserver`. A forked child looks at nothing."""
        if self._guard.is_forked or not completion.text:
            return
        if self._successor is not None:
            self._successor.observe_answer(request, decision, completion, labels)
            return
        shadow, judged = self._choose_shadow(decision, completion), self._choose_judged(completion)
        broken = self.broken_json is not None and is_broken_json(request, completion)
        self._add(_Waiting(request, decision, completion, labels, judged, broken, shadow))

    def status(self) -> LabellerStatus:
        """See `AnswerObserver`."""
        return LabellerStatus(
            **self._counts,
            judge_usd=self._paid["judge"],
            shadow_usd=self._paid["shadow"],
            judge_usd_today=self.judge.budget.spent_usd if self.judge else 0.0,
            shadow_usd_today=self.shadow.budget.spent_usd if self.shadow else 0.0,
        )

    def wait(self) -> None:
        """Wait until every answer so far was looked at."""
        self._waiting.join()

    def close(self, successor: AnswerObserver | None = None) -> None:
        """See `AnswerObserver`. Without a successor this waits for the call that is under way."""
        if self._closed or self._guard.is_forked:
            return
        with self._gate:
            self._closed, self._successor = True, successor
            waiting = self._take_waiting()
            self._waiting.put(None)
        if isinstance(successor, BackgroundLabeller):
            successor._take_over(self, waiting)
            return
        self._counts["left_out"] += len(waiting)
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()

    def _take_over(self, before: BackgroundLabeller, waiting: Sequence[_Waiting]) -> None:
        """Look at the answers that wait at a predecessor, as far as these settings still ask for it."""
        self._workers += [worker for worker in before._workers if worker.is_alive()]
        for name, count in before._counts.items():
            self._counts[name] += count if name != "calibrated_by" else 0
        for call, usd in before._paid.items():
            self._paid[call] += usd
        for answer in waiting:
            judge = self.judge.model if self.judge is not None else None
            judged = answer.judged and judge not in (None, model_of(answer.completion.model))
            asked = self.shadow is not None and answer.shadow in self.shadow.models and answer.shadow != judge
            self._add(replace(answer, judged=judged, shadow=answer.shadow if asked else None))

    def _add(self, answer: _Waiting) -> None:
        if answer.shadow is None and not answer.judged and not answer.broken and self.reward is None:
            return
        with self._gate:
            if self._closed or self._waiting.qsize() >= MAX_WAITING:
                self._counts["left_out"] += 1
            else:
                self._waiting.put(answer)

    def _take_waiting(self) -> list[_Waiting]:
        found: list[_Waiting] = []
        while True:
            try:
                answer = self._waiting.get_nowait()
            except queue.Empty:
                return found
            self._waiting.task_done()
            if answer is not None:
                found.append(answer)

    def _choose_judged(self, completion: Completion) -> bool:
        judge = self.judge
        return judge is not None and model_of(completion.model) != judge.model and self._draw.random() < judge.share

    def _choose_shadow(self, decision: Decision, completion: Completion) -> str | None:
        """Return the other model to ask, one that may answer this request, or None."""
        if self.shadow is None or self._draw.random() >= self.shadow.share:
            return None
        allowed = {decision.model, *decision.fallbacks} - {model_of(completion.model)}
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
        question, other = conversation_text(answer.request.messages, _question_view(self.view)), None
        if answer.shadow is not None:
            with self._counted_failure():
                other = self._ask_shadow(answer, answer.shadow)
        judged = self._judge is not None and (answer.judged or other is not None)
        grade = self._grade(answer, question, answer.completion, judged, rewarded=not answer.broken)
        other_grade = None
        if other is not None:
            with self._counted_failure():
                other_grade = self._grade(answer, question, other, judged, rewarded=True)
        if other is not None and grade is not None and other_grade is not None:
            grade, other_grade = self._compare(answer, question, other, (grade, other_grade))
        if grade is not None:
            answer.labels.record(*self._calibrate(grade))
        if other is not None and other_grade is not None:
            quality, _, judgement = self._calibrate(other_grade)
            answer.labels.record_other(other, quality, judgement)

    def _ask_shadow(self, answer: _Waiting, model: str) -> Completion | None:
        assert self.shadow is not None
        reserved = worst_usd(self._models[model], answer.request, count_tokens(answer.request.messages))
        if not self.shadow.budget.reserve(reserved):
            return None
        paid = 0.0
        try:
            with self.workload.hold(model):
                completion = self.backend.complete(model, answer.request.addressed_to(model))
            paid = completion.cost_usd
        except Overloaded:
            return None  # its slots are for requests that somebody waits for
        except BackendError as error:
            paid = reserved if error.kind.billed else 0.0
            raise
        finally:
            self.shadow.budget.settle(reserved, paid)
            self._note_spending(answer, "shadow", paid)
        self._counts["shadowed"] += 1
        return completion

    def _note_spending(self, answer: _Waiting, call: LabellingCall, usd: float) -> None:
        if usd > 0:
            self._paid[call] += usd
            answer.labels.add_spending(call, usd)

    def _grade(
        self, answer: _Waiting, question: str, completion: Completion, judged: bool, *, rewarded: bool
    ) -> _Grade | None:
        """Return the grade of the judge, or else of the reward model. None where neither gives one."""
        if judged and self._judge is not None and completion.model != self._judge.settings.model:
            with self._counted_failure():
                spend = partial(self._note_spending, answer, "judge")
                quality = self._judge.grade(question, completion.text, spend)
                if quality is not None:
                    self._counts["judged"] += 1
                    return _Grade(quality, "judge")
        if self.reward is None or not rewarded:
            return None
        shown = Answer(
            question, model_of(completion.model), completion.text, completion.output_tokens, completion.finish_reason
        )
        reward = float(self.reward.score([shown])[0])
        self._counts["rewarded"] += 1
        return _Grade(reward, "reward")

    def _compare(
        self, answer: _Waiting, question: str, other: Completion, grades: tuple[_Grade, _Grade]
    ) -> tuple[_Grade, _Grade]:
        """Let the judge compare an answer with the shadow answer, where it graded both and is asked for pairs."""
        judge = self._judge
        if judge is None or not judge.settings.pairs or any(grade.source != "judge" for grade in grades):
            return grades
        with self._counted_failure():
            spend = partial(self._note_spending, answer, "judge")
            found = judge.compare(question, answer.completion.text, other.text, spend)
            if found is not None:
                self._counts["compared"] += 1
                self._counts["swayed"] += found.swayed
                labels = reconcile(grades[0].quality, grades[1].quality, found.preference)
                won = {"first": 1.0, "tie": 0.5, "second": 0.0}[found.preference]
                return (
                    replace(grades[0], compared=labels[0], preference=won),
                    replace(grades[1], compared=labels[1], preference=1 - won),
                )
        return grades

    def _calibrate(self, grade: _Grade) -> tuple[float, LabelSource, Judgement | None]:
        """Return the label that a grade becomes, who gives it, and what the judge said before it was corrected."""
        if grade.source != "judge" or self._judge is None:
            return grade.quality, grade.source, None
        uncalibrated = grade.quality if grade.compared is None else grade.compared
        found = self._calibrator.current() if self._calibrator is not None else None
        self._counts["calibrated_by"] = found.pairs if found is not None else 0
        judgement = Judgement(
            judge=self._judge.settings.model,
            grade=grade.quality,
            uncalibrated=uncalibrated,
            preference=grade.preference,
            calibration=found.version if found is not None else None,
        )
        return found.apply(uncalibrated) if found is not None else uncalibrated, "judge", judgement


def _question_view(view: ConversationView) -> ConversationView:
    """Return what a judge reads. The numbers of an agent's step are for the encoder."""
    return "last_user" if view == "agent_step" else view
