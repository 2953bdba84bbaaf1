"""Asks every model every question, grades the answers, and writes outcomes: the story of `eccos collect`.

for each question (a window of them at a time)
    for each model: answer on file? else call it (slot, budget, journal)   calls.py, budget.py
                    answer in the journal, forced to the disk              journal.py
                    grade it                                              graders.py
    all models in: one line in the outcomes file                          outcomes_file.py
at the end: the outcomes in the questions' order, and the journal removed when nothing is missing
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eccos_core.backends.retrying import RetryPolicy
from eccos_core.collecting.budget import BudgetGuard
from eccos_core.collecting.graders import Graders
from eccos_core.collecting.journal import AnswerEntry, FailureEntry, GradeEntry, Journal, read_journal
from eccos_core.collecting.outcomes_file import OutcomesFile
from eccos_core.collecting.paid_calls import BudgetReachedError, JudgesBackend, PaidCalls
from eccos_core.collecting.progress import CollectionProgress, journal_path
from eccos_core.collecting.questions import Question
from eccos_core.domain import Completion, Model
from eccos_core.errors import BackendError, GradingError, InputError, UnknownModelError
from eccos_core.protocols import Backend

DEFAULT_CONCURRENCY = 8
_WINDOWS_OF_SLOTS = 2  # questions that may be open at once, as a multiple of the largest cap

EventKind: TypeAlias = Literal["answered", "failed", "ungraded", "on_file"]


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """How to collect.

    `parameters`: of every call (max_tokens, temperature, ...). `concurrency`: most calls in flight per model; a model's
    own `max_concurrency` is never exceeded. `budget_usd`: for everything that this outcomes file ever cost.
    `retry_failed`: ask again where a call failed, and grade again where grading failed. `keep_answers`: the answers'
    text goes into the outcomes. `models`: ask only these.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    budget_usd: float | None = None
    retry_failed: bool = False
    keep_answers: bool = False
    models: Sequence[str] | None = None
    retries: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}, must be >= 1")


@dataclass(frozen=True, slots=True)
class CollectEvent:
    """One model is done with one question. USD: spent so far by this outcomes file."""

    kind: EventKind
    model: str
    spent_usd: float


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did.

    `questions` were wanted of `models`; `complete` have a line with all of them. `calls` were made now, retries and
    judges included; `on_file` answers were there before. `failed`: per model, per kind of error. `ungraded`: answers
    without a score, per model. `accuracy`: mean score per model, None where nothing was scored. USD: `spent_usd` for
    this outcomes file, all runs together; `at_risk_usd` may have been billed beyond that, for calls that failed half
    way or were in flight when a process was killed (`in_flight_at_kill` of those were found).
    """

    questions: int
    complete: int
    models: tuple[str, ...]
    calls: int
    on_file: int
    failed: Mapping[str, Mapping[str, int]]
    ungraded: Mapping[str, int]
    accuracy: Mapping[str, float | None]
    spent_usd: float
    at_risk_usd: float
    in_flight_at_kill: int
    budget_reached: bool


async def collect(
    questions: Sequence[Question],
    models: Sequence[Model],
    backend: Backend,
    out: Path,
    options: CollectOptions | None = None,
    *,
    observe: Callable[[CollectEvent], None] = lambda event: None,
    source: str = "questions",
) -> CollectReport:
    """Ask every model every question and write the outcomes to `out`; go on where an earlier run ended.

    `source` is what errors call the questions file. Raises `InputError` (unknown models, unusable questions, files
    that cannot be written, a journal of other questions or parameters) before anything is asked, or later when the
    disk is full; whatever was answered until then is kept.
    """
    options = options or CollectOptions()
    asked = chosen_models(models, options.models)
    graders = Graders(questions, backend, [model.name for model in models], source)
    journal = Journal(journal_path(out))
    try:
        outcomes = OutcomesFile(out, questions)
        outcomes.repair()
        progress = CollectionProgress(
            questions,
            asked,
            outcomes,
            read_journal(journal.path),
            parameters=options.parameters,
            retry_failed=options.retry_failed,
            keep_answers=options.keep_answers,
        )
        run = _CollectionRun(questions, asked, models, backend, progress, journal, graders, options, observe)
        await run.all()
        outcomes.rewrite(asked)
        collected = run.result()
        if collected.complete == collected.questions:
            journal.remove()
        return collected
    finally:
        graders.close()
        journal.close()


def chosen_models(models: Sequence[Model], names: Sequence[str] | None) -> list[str]:
    """The names of the models that are asked, in the pool's order. Raises `UnknownModelError`."""
    known = [model.name for model in models]
    for name in names or ():
        if name not in known:
            raise UnknownModelError(name, known)
    return [name for name in known if names is None or name in names]


class _CollectionRun:
    """One run of a collection. Everything new is in the journal before it is used."""

    def __init__(
        self,
        questions: Sequence[Question],
        asked: Sequence[str],
        pool: Sequence[Model],
        backend: Backend,
        progress: CollectionProgress,
        journal: Journal,
        graders: Graders,
        options: CollectOptions,
        observe: Callable[[CollectEvent], None],
    ) -> None:
        self._questions = questions
        self._models = asked
        self._progress = progress
        self._journal = journal
        self._graders = graders
        self._parameters = options.parameters
        self._observe = observe
        self._on_file = sum(len(asked) - len(progress.missing(question)) for question in questions)
        self._budget = BudgetGuard(options.budget_usd, progress.spent_usd, progress.at_risk_usd)
        slots = {model.name: _slots(model, options.concurrency) for model in pool}
        self._window = asyncio.Semaphore(_WINDOWS_OF_SLOTS * max(slots.values()))
        by_name = {model.name: model for model in pool}
        self._calls = PaidCalls(backend, by_name, slots, journal, self._budget, options.retries)

    async def all(self) -> None:
        """Every question, as far as the budget goes."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for question in self._questions:
                    await self._window.acquire()
                    unanswered = self._progress.unanswered(question)
                    if not await self._calls.afford(unanswered, question.request(self._parameters)):
                        break
                    tasks.create_task(self._question(question))
        except BaseExceptionGroup as group:
            raise _first_of(group) from group

    async def _question(self, question: Question) -> None:
        try:
            missing = self._progress.missing(question)
            for model in self._models:
                if model not in missing:
                    self._tell("on_file", model)
            async with asyncio.TaskGroup() as tasks:
                for model in missing:
                    tasks.create_task(self._outcome(question, model))
            if self._progress.is_complete(question):
                self._progress.write_line(question)
        finally:
            self._window.release()

    async def _outcome(self, question: Question, model: str) -> None:
        """One model's outcome of one question; none when the budget is reached before."""
        try:
            answer = self._progress.answer(question, model) or await self._answer(question, model)
            if answer is None:
                self._tell("failed", model)
                return
            grade = await self._grade(question, answer)
        except BudgetReachedError:
            return
        self._progress.add_grade(answer, grade)
        self._tell("answered" if grade.score is not None else "ungraded", model)

    async def _answer(self, question: Question, model: str) -> AnswerEntry | None:
        """Asks; the answer is in the journal before this returns. None when the model failed, which is recorded."""
        cell, digest = (question.id, model), self._progress.digest(question)
        request = question.request(self._parameters)

        async def keep(completion: Completion) -> None:
            answer = AnswerEntry(
                *cell,
                digest,
                text=completion.text,
                input_tokens=completion.input_tokens,
                output_tokens=completion.output_tokens,
                cost_usd=completion.cost_usd,
                latency_s=completion.latency_s,
                finish_reason=completion.finish_reason,
            )
            await self._journal.append(answer)
            self._progress.add_answer(answer)

        try:
            await self._calls.call(model, request, cell, "answer", keep, afforded=True)
        except BackendError as error:
            failure = FailureEntry(*cell, digest, error.kind, str(error), self._calls.at_risk(model, request, error))
            await self._journal.append(failure)
            self._progress.add_failure(failure)
        return self._progress.answer(question, model)

    async def _grade(self, question: Question, answer: AnswerEntry) -> GradeEntry:
        """Scores an answer; the score, or why there is none, is in the journal before this returns."""
        cell = (question.id, answer.model)
        judge = JudgesBackend(self._calls, self._journal, cell, self._progress.verdict(question, answer.model))
        try:
            score = await self._graders.score(question, answer.text, judge)
            grade = GradeEntry(*cell, score, judge.spent_usd)
        except GradingError as error:
            grade = GradeEntry(*cell, None, judge.spent_usd, str(error))
        await self._journal.append(grade)
        return grade

    def _tell(self, kind: EventKind, model: str) -> None:
        self._observe(CollectEvent(kind, model, self._budget.spent))

    def result(self) -> CollectReport:
        """What was done, and what stands in the file."""
        return CollectReport(
            questions=len(self._questions),
            complete=sum(self._progress.is_complete(question) for question in self._questions),
            models=tuple(self._models),
            calls=self._calls.made,
            on_file=self._on_file,
            failed=self._progress.failures(),
            ungraded=self._progress.ungraded(),
            accuracy=self._progress.accuracy(),
            spent_usd=self._budget.spent,
            at_risk_usd=self._budget.at_risk,
            in_flight_at_kill=self._progress.in_flight_at_kill,
            budget_reached=self._budget.exhausted,
        )


def _slots(model: Model, concurrency: int | None) -> int:
    limits = [limit for limit in (model.max_concurrency, concurrency) if limit is not None]
    return min(limits, default=DEFAULT_CONCURRENCY)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the collection; the others followed from it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
