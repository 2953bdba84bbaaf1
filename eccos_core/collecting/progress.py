"""How far a collection is: what stands in the outcomes file and in the journal, together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eccos_core.collecting.journal import AnswerEntry, Entry, FailureEntry, GradeEntry, JudgedEntry, replay_journal
from eccos_core.collecting.outcomes_file import OutcomesFile, Output, answer_in, output_of, output_of_failure
from eccos_core.collecting.questions import Question
from eccos_core.errors import InputError


def journal_path(out: Path) -> Path:
    """Where the journal of an outcomes file is: beside it, `outcomes.partial.jsonl` for `outcomes.jsonl`."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.partial.jsonl")


class CollectionProgress:
    """What is known of every (question, model). Changes only through `answered`, `graded` and `failed`.

    Raises `InputError` when the journal belongs to other texts or parameters. With `retry_failed`, what failed before
    counts as not done: a failed call is made again, an answer that could not be graded is graded again.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        models: Sequence[str],
        outcomes: OutcomesFile,
        journal: Sequence[Entry],
        *,
        parameters: Mapping[str, Any],
        retry_failed: bool,
        keep_answers: bool,
    ) -> None:
        self._questions = questions
        self._models = models
        self._outcomes = outcomes
        self._keep_answers = keep_answers
        self._digests = {question.id: question.digest(parameters) for question in questions}
        self._memory = replay_journal(journal)
        self._answers = self._memory.answers
        self._on_paper = {question.id for question in questions if self.is_complete(question)}
        self.spent_usd = self._spent()
        for question in questions:
            for model in models:
                self._restore(question, model, retry_failed)

    @property
    def at_risk_usd(self) -> float:
        """What calls that failed half way, or were in flight at a kill, may have cost."""
        return self._memory.usd_at_risk

    @property
    def in_flight_at_kill(self) -> int:
        """How many calls had begun, and have no reply in the journal."""
        return self._memory.in_flight

    def _restore(self, question: Question, model: str, retry_failed: bool) -> None:
        cell, outputs = (question.id, model), self._outcomes.outputs
        answer, failure = self._answers.get(cell), self._memory.failures.get(cell)
        self._check(question, answer or failure)
        if answer and (grade := self._memory.grades.get(cell)):
            outputs[cell] = output_of(answer, grade, self._keep_answers)
        elif failure and not answer:
            outputs.setdefault(cell, output_of_failure(failure))
        output = outputs.get(cell)
        if output is not None and output.get("correct") is None and retry_failed:
            del outputs[cell]
            self._on_paper.discard(question.id)
            kept = answer_in(output, question, self._digests[question.id])
            if kept is not None:
                self._answers.setdefault(cell, kept)

    def _check(self, question: Question, entry: AnswerEntry | FailureEntry | None) -> None:
        if entry is not None and entry.digest != self._digests[question.id]:
            raise InputError(
                f"{journal_path(self._outcomes.path)}: question {question.id!r} was asked of {entry.model!r} with other"
                " text or other parameters (max_tokens, temperature); go on with those, choose another --out, or remove"
                " that file (its answers are then paid for again)"
            )

    def _spent(self) -> float:
        memory = self._memory
        spent = memory.usd_of_graders + sum(answer.cost_usd for answer in memory.answers.values())
        for cell, output in self._outcomes.outputs.items():
            spent += 0.0 if cell in memory.answers else output.get("cost_usd") or 0.0
            spent += 0.0 if cell in memory.grades else output.get("grading_usd") or 0.0
        return spent

    # ------------------------------------------------------------------------------------------------- questions

    def digest(self, question: Question) -> str:
        """What identifies what is asked."""
        return self._digests[question.id]

    def missing(self, question: Question) -> list[str]:
        """The models whose outcome of a question is still wanted."""
        return [model for model in self._models if (question.id, model) not in self._outcomes.outputs]

    def unanswered(self, question: Question) -> list[str]:
        """The models that have to be asked a question: no answer is on file, graded or not."""
        return [model for model in self.missing(question) if (question.id, model) not in self._answers]

    def is_complete(self, question: Question) -> bool:
        """Whether every model's outcome of a question is known, be it a failure."""
        return not self.missing(question)

    def answer(self, question: Question, model: str) -> AnswerEntry | None:
        """The answer that is on file, graded or not."""
        return self._answers.get((question.id, model))

    def verdict(self, question: Question, model: str) -> JudgedEntry | None:
        """What a judge said about that answer, before a kill."""
        return self._memory.judged.get((question.id, model))

    # --------------------------------------------------------------------------------------------------- changes

    def add_answer(self, answer: AnswerEntry) -> None:
        """An answer is safely in the journal."""
        self._answers[answer.id, answer.model] = answer

    def add_grade(self, answer: AnswerEntry, grade: GradeEntry) -> None:
        """An answer has its score, or will have none."""
        self._outcomes.outputs[answer.id, answer.model] = output_of(answer, grade, self._keep_answers)

    def add_failure(self, failure: FailureEntry) -> None:
        """A model failed on a question for good."""
        self._outcomes.outputs[failure.id, failure.model] = output_of_failure(failure)

    def write_line(self, question: Question) -> None:
        """Appends the line of a complete question, unless it stands in the file already."""
        if question.id not in self._on_paper:
            self._on_paper.add(question.id)
            self._outcomes.append(question, [self._outcomes.outputs[question.id, model] for model in self._models])

    # --------------------------------------------------------------------------------------------------- summary

    def failures(self) -> dict[str, dict[str, int]]:
        """Per model, per kind of error: on how many questions it failed."""
        counts: dict[str, Counter[str]] = {}
        for model, output in self._outputs():
            if output.get("correct") is None and "cost_usd" not in output:
                counts.setdefault(model, Counter())[str(output.get("error", "unknown"))] += 1
        return {model: dict(count) for model, count in counts.items()}

    def ungraded(self) -> dict[str, int]:
        """Per model: how many answers could not be graded."""
        return dict(
            Counter(m for m, output in self._outputs() if output.get("correct") is None and "cost_usd" in output)
        )

    def accuracy(self) -> dict[str, float | None]:
        """Per model: the mean score of what has one."""
        scores: dict[str, list[float]] = {model: [] for model in self._models}
        for model, output in self._outputs():
            if output.get("correct") is not None:
                scores[model].append(output["correct"])
        return {model: sum(each) / len(each) if each else None for model, each in scores.items()}

    def mean_output_tokens(self) -> dict[str, float]:
        """Per model that has answered: how long its answers are on average, in tokens."""
        lengths: dict[str, list[int]] = {}
        for answer in self._answers.values():
            lengths.setdefault(answer.model, []).append(answer.output_tokens)
        for (question_id, model), output in self._outcomes.outputs.items():
            if (question_id, model) not in self._answers and isinstance(output.get("output_tokens"), int):
                lengths.setdefault(model, []).append(output["output_tokens"])
        return {model: sum(each) / len(each) for model, each in lengths.items()}

    def _outputs(self) -> list[tuple[str, Output]]:
        return [(model, o) for (_, model), o in self._outcomes.outputs.items() if model in self._models]
