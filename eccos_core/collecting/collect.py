"""Call every model with every question, grade the answers, and write outcomes: the work of `eccos collect`.

for each question (several at a time)
    for each model without an answer: call it within slots and budget     paid_calls.py, budget.py
                                      sync the answer to the journal      journal.py
                                      grade the answer                    graders.py
    once all models are done: append a line to the outcomes file          outcomes_file.py
at the end: put the outcomes in the questions' order, and delete the journal if nothing is missing
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eccos_core.answers import grader_answer, measure_answer
from eccos_core.backends.retrying import RetryPolicy
from eccos_core.collecting.budget import BudgetGuard
from eccos_core.collecting.graders import Graders
from eccos_core.collecting.journal import AnswerEntry, FailureEntry, GradeEntry, Journal, read_journal
from eccos_core.collecting.outcomes_file import OutcomesFile
from eccos_core.collecting.paid_calls import BudgetReachedError, JudgeBackend, PaidCalls
from eccos_core.collecting.progress import CollectionProgress, journal_path
from eccos_core.collecting.questions import Question
from eccos_core.domain import Completion, Model
from eccos_core.errors import BackendError, GradingError, InputError, UnknownModelError
from eccos_core.grading import RewardLoader
from eccos_core.io.answers import Answer
from eccos_core.protocols import Backend

DEFAULT_CONCURRENCY = 8
_OPEN_QUESTIONS_PER_SLOT = 2  # how many questions are open at once, per slot of the model with the most slots

EventKind: TypeAlias = Literal["answered", "failed", "ungraded", "already_recorded"]


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """How to collect.

    `parameters`: of every call (max_tokens, temperature, ...). `concurrency`: the most calls in flight per model. A
    model's own `max_concurrency` also holds. `budget_usd`: the most that this outcomes file may cost over all runs.
    `retry_failed`: call again where a call failed, and grade again where grading failed. `keep_answers`: write the text
    of the answers into the outcomes. `models`: call only these. `reward`: loads the model of the grader `reward`.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    budget_usd: float | None = None
    retry_failed: bool = False
    keep_answers: bool = False
    models: Sequence[str] | None = None
    reward: RewardLoader | None = None
    retries: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}, it must be >= 1")


@dataclass(frozen=True, slots=True)
class CollectEvent:
    """One model is done with one question. `spent_usd`: what this outcomes file has cost so far."""

    kind: EventKind
    model: str
    spent_usd: float


@dataclass(frozen=True, slots=True)
class CollectReport:
    """The result of a collection.

    `questions`: how many were asked of `models`. `complete`: how many have an outcome of every model. `calls`: calls of
    this run, with retries and judges. `already_recorded`: outcomes of earlier runs. `failed`: counts per model and kind
    of error. `ungraded`: answers without a score, per model. `accuracy`: mean score per model, None without scores.

    `spent_usd`: the cost of this outcomes file, all runs together. `at_risk_usd`: what providers may have billed beyond
    that, for calls that failed or were in flight when a process was killed. `in_flight_at_kill`: the number of those.
    """

    questions: int
    complete: int
    models: tuple[str, ...]
    calls: int
    already_recorded: int
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
    """Call every model with every question and write the outcomes to `out`. Continues where an earlier run ended.

    Each output has the final answer as the grader reads it, and what the answer tells about itself. Log-probabilities
    are among that where the model gives them.

    `observe` is called for every outcome. `source` names the questions file in errors. Raises `InputError` before the
    first call for unknown models, unusable questions, files that cannot be written, or a journal of other questions or
    parameters. Raises it later when the disk is full. All answers up to then are kept.
    """
    options = options or CollectOptions()
    names = select_models(models, options.models)
    with open_collection(questions, models, backend, out, options, names, observe=observe, source=source) as opened:
        await opened.run.ask([(question, names) for question in questions])
        opened.outcomes.rewrite(names)
        return opened.finish()


@dataclass(frozen=True, slots=True, eq=False)
class OpenCollection:
    """A collection whose journal and outcomes file are open."""

    run: CollectionRun
    outcomes: OutcomesFile
    progress: CollectionProgress
    journal: Journal

    def finish(self) -> CollectReport:
        """Report what was collected. The journal is removed if nothing is left to ask."""
        report = self.run.report()
        if report.complete == report.questions:
            self.journal.remove()
        return report


@contextmanager
def open_collection(
    questions: Sequence[Question],
    models: Sequence[Model],
    backend: Backend,
    out: Path,
    options: CollectOptions,
    names: Sequence[str],
    *,
    observe: Callable[[CollectEvent], None],
    source: str,
) -> Iterator[OpenCollection]:
    """Open the files of a collection of `names`, as an earlier run left them. Raises what `collect` raises."""
    graders = Graders(questions, backend, [model.name for model in models], source, options.reward)
    journal = Journal(journal_path(out))
    try:
        outcomes = OutcomesFile(out, questions)
        outcomes.repair()
        progress = CollectionProgress(
            questions,
            names,
            outcomes,
            read_journal(journal.path),
            parameters=options.parameters,
            retry_failed=options.retry_failed,
            keep_answers=options.keep_answers,
        )
        run = CollectionRun(questions, names, models, backend, progress, journal, graders, options, observe)
        yield OpenCollection(run, outcomes, progress, journal)
    finally:
        graders.close()
        journal.close()


def select_models(models: Sequence[Model], names: Sequence[str] | None) -> list[str]:
    """Return the names of the models to call, in the pool's order. The name of a model stands for all its efforts.

    Raises `UnknownModelError`.
    """
    known = [model.name for model in models]
    deployments = {model.deployment for model in models}
    for name in names or ():
        if name not in known and name not in deployments:
            raise UnknownModelError(name, known)
    return [model.name for model in models if names is None or model.is_named_in(set(names))]


class CollectionRun:
    """One run of a collection. It writes every new answer and grade to the journal before it uses it."""

    def __init__(
        self,
        questions: Sequence[Question],
        names: Sequence[str],
        pool: Sequence[Model],
        backend: Backend,
        progress: CollectionProgress,
        journal: Journal,
        graders: Graders,
        options: CollectOptions,
        observe: Callable[[CollectEvent], None],
    ) -> None:
        self._questions = questions
        self._models = names
        self._progress = progress
        self._journal = journal
        self._graders = graders
        self._parameters = options.parameters
        self._observe = observe
        self._already_recorded = sum(len(names) - len(progress.missing(question)) for question in questions)
        self._budget = BudgetGuard(options.budget_usd, progress.spent_usd, progress.at_risk_usd)
        slots = {model.name: _concurrency_limit(model, options.concurrency) for model in pool}
        self._window = asyncio.Semaphore(_OPEN_QUESTIONS_PER_SLOT * max(slots.values()))
        by_name = {model.name: model for model in pool}
        self._calls = PaidCalls(backend, by_name, slots, journal, self._budget, options.retries)

    async def ask(self, wanted: Sequence[tuple[Question, Sequence[str]]]) -> None:
        """Ask each question of its models, as far as the budget goes. Whoever has an outcome is not asked again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for question, models in wanted:
                    await self._window.acquire()
                    unanswered = [model for model in self._progress.unanswered(question) if model in models]
                    if not await self._calls.reserve_question(unanswered, question.request(self._parameters)):
                        break
                    tasks.create_task(self._collect_question(question, models))
        except BaseExceptionGroup as group:
            raise _root_cause(group) from group

    @property
    def left_usd(self) -> float | None:
        """What is left of the budget, in USD. None without a budget."""
        spent = self._budget.spent + self._budget.at_risk
        return None if self._budget.budget is None else max(self._budget.budget - spent, 0.0)

    @property
    def budget_reached(self) -> bool:
        """Whether a call did not fit the budget."""
        return self._budget.exhausted

    async def _collect_question(self, question: Question, models: Sequence[str]) -> None:
        try:
            without = self._progress.missing(question)
            missing = [model for model in models if model in without]
            for model in models:
                if model not in missing:
                    self._notify("already_recorded", model)
            async with asyncio.TaskGroup() as tasks:
                for model in missing:
                    tasks.create_task(self._collect_outcome(question, model))
            if self._progress.is_complete(question):
                self._progress.write_line(question)
        finally:
            self._window.release()

    async def _collect_outcome(self, question: Question, model: str) -> None:
        """Collect one model's outcome of one question, unless the budget is reached first."""
        try:
            answer = self._progress.answer(question, model) or await self._request_answer(question, model)
            if answer is None:
                self._notify("failed", model)
                return
            grade = await self._grade(question, answer)
        except BudgetReachedError:
            return
        self._progress.add_grade(answer, grade)
        self._notify("answered" if grade.score is not None else "ungraded", model)

    async def _request_answer(self, question: Question, model: str) -> AnswerEntry | None:
        """Call a model and write its answer to the journal. Records a failure and returns None if the model failed."""
        cell, digest = (question.id, model), self._progress.digest(question)
        request = question.request(self._parameters)

        async def save_answer(completion: Completion) -> None:
            answer = AnswerEntry(
                *cell,
                digest,
                text=completion.text,
                input_tokens=completion.input_tokens,
                output_tokens=completion.output_tokens,
                cost_usd=completion.cost_usd,
                latency_s=completion.latency_s,
                finish_reason=completion.finish_reason,
                features=measure_answer(request, completion).features,
            )
            await self._journal.append(answer)
            self._progress.add_answer(answer)

        try:
            await self._calls.call(model, request, cell, "answer", save_answer, reserved=True)
        except BackendError as error:
            failure = FailureEntry(*cell, digest, error.kind, str(error), self._calls.at_risk(model, request, error))
            await self._journal.append(failure)
            self._progress.add_failure(failure)
        return self._progress.answer(question, model)

    async def _grade(self, question: Question, answer: AnswerEntry) -> GradeEntry:
        """Score an answer and write the score to the journal, or the reason why there is none."""
        cell = (question.id, answer.model)
        judge = JudgeBackend(self._calls, self._journal, cell, self._progress.verdict(question, answer.model))
        final = grader_answer(self._graders.select(question), answer.text, question.query)
        try:
            given = Answer(question.query, answer.model, answer.text, answer.output_tokens, answer.finish_reason)
            score = await self._graders.score(question, given, judge)
            grade = GradeEntry(*cell, score, judge.spent_usd, answer=final)
        except GradingError as error:
            grade = GradeEntry(*cell, None, judge.spent_usd, str(error), final)
        await self._journal.append(grade)
        return grade

    def _notify(self, kind: EventKind, model: str) -> None:
        self._observe(CollectEvent(kind, model, self._budget.spent))

    def report(self) -> CollectReport:
        """Report what this run did and what the outcomes file holds."""
        return CollectReport(
            questions=len(self._questions),
            complete=sum(self._progress.is_complete(question) for question in self._questions),
            models=tuple(self._models),
            calls=self._calls.call_count,
            already_recorded=self._already_recorded,
            failed=self._progress.failures(),
            ungraded=self._progress.ungraded(),
            accuracy=self._progress.accuracy(),
            spent_usd=self._budget.spent,
            at_risk_usd=self._budget.at_risk,
            in_flight_at_kill=self._progress.in_flight_at_kill,
            budget_reached=self._budget.exhausted,
        )


def _concurrency_limit(model: Model, concurrency: int | None) -> int:
    limits = [limit for limit in (model.max_concurrency, concurrency) if limit is not None]
    return min(limits, default=DEFAULT_CONCURRENCY)


def _root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended the collection. The others followed from it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
