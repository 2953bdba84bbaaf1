"""Combine the outcomes file and the journal into the progress of a collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eccos_core.collecting.journal import AnswerEntry, Entry, FailureEntry, GradeEntry, VerdictEntry, replay_journal
from eccos_core.collecting.outcomes_file import (
    OutcomesFile,
    Output,
    answer_from_output,
    answer_to_output,
    failure_to_output,
)
from eccos_core.collecting.questions import Question
from eccos_core.errors import InputError


def journal_path(out: Path) -> Path:
    """Return the path of the journal beside an outcomes file: `outcomes.partial.jsonl` for `outcomes.jsonl`."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.partial.jsonl")


class CollectionProgress:
    """The state of every (question, model). Change it with `add_answer`, `add_grade` and `add_failure` only.

    With `retry_failed`, a failed call is made again and an ungraded answer is graded again. Raises `InputError` when
    the journal belongs to other texts or parameters.
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
        self._journal = replay_journal(journal)
        self._answers = self._journal.answers
        self._written_ids = {question.id for question in questions if self.is_complete(question)}
        self.spent_usd = self._spent()
        for question in questions:
            for model in models:
                self._restore(question, model, retry_failed)

    @property
    def at_risk_usd(self) -> float:
        """What calls may have cost that failed, or were in flight when the process was killed."""
        return self._journal.usd_at_risk

    @property
    def in_flight_at_kill(self) -> int:
        """How many calls in the journal have no reply."""
        return self._journal.in_flight

    def _restore(self, question: Question, model: str, retry_failed: bool) -> None:
        cell, outputs = (question.id, model), self._outcomes.outputs
        answer, failure = self._answers.get(cell), self._journal.failures.get(cell)
        self._check(question, answer or failure)
        if answer and (grade := self._journal.grades.get(cell)):
            outputs[cell] = answer_to_output(answer, grade, self._keep_answers)
        elif failure and not answer:
            outputs.setdefault(cell, failure_to_output(failure))
        output = outputs.get(cell)
        if output is not None and output.get("correct") is None and retry_failed:
            del outputs[cell]
            self._written_ids.discard(question.id)
            answer = answer_from_output(output, question, self._digests[question.id])
            if answer is not None:
                self._answers.setdefault(cell, answer)

    def _check(self, question: Question, entry: AnswerEntry | FailureEntry | None) -> None:
        if entry is not None and entry.digest != self._digests[question.id]:
            raise InputError(
                f"{journal_path(self._outcomes.path)}: {entry.model!r} got question {question.id!r} with other text"
                " or other parameters (max_tokens, temperature). Use those again, choose another --out, or delete that"
                " file and pay for its answers again."
            )

    def _spent(self) -> float:
        memory = self._journal
        spent = memory.grading_usd + sum(answer.cost_usd for answer in memory.answers.values())
        for cell, output in self._outcomes.outputs.items():
            spent += 0.0 if cell in memory.answers else output.get("cost_usd") or 0.0
            spent += 0.0 if cell in memory.grades else output.get("grading_usd") or 0.0
        return spent

    # ------------------------------------------------------------------------------------------------- questions

    def digest(self, question: Question) -> str:
        """Return the digest of the question's text and parameters."""
        return self._digests[question.id]

    def missing(self, question: Question) -> list[str]:
        """Return the models without an outcome of a question."""
        return [model for model in self._models if (question.id, model) not in self._outcomes.outputs]

    def unanswered(self, question: Question) -> list[str]:
        """Return the models without an answer to a question, graded or not."""
        return [model for model in self.missing(question) if (question.id, model) not in self._answers]

    def is_complete(self, question: Question) -> bool:
        """Tell whether every model has an outcome of a question. A failure counts as one."""
        return not self.missing(question)

    def answer(self, question: Question, model: str) -> AnswerEntry | None:
        """Return the recorded answer, graded or not."""
        return self._answers.get((question.id, model))

    def verdict(self, question: Question, model: str) -> VerdictEntry | None:
        """Return the judge's reply about that answer from before a kill."""
        return self._journal.verdicts.get((question.id, model))

    # --------------------------------------------------------------------------------------------------- changes

    def add_answer(self, answer: AnswerEntry) -> None:
        """Add an answer that is safely in the journal."""
        self._answers[answer.id, answer.model] = answer

    def add_grade(self, answer: AnswerEntry, grade: GradeEntry) -> None:
        """Add the grade of an answer, with or without a score."""
        self._outcomes.outputs[answer.id, answer.model] = answer_to_output(answer, grade, self._keep_answers)

    def add_failure(self, failure: FailureEntry) -> None:
        """Add the final failure of a model on a question."""
        self._outcomes.outputs[failure.id, failure.model] = failure_to_output(failure)

    def write_line(self, question: Question) -> None:
        """Append the line of a complete question, unless the file has it already."""
        if question.id not in self._written_ids:
            self._written_ids.add(question.id)
            self._outcomes.append(question, [self._outcomes.outputs[question.id, model] for model in self._models])

    # --------------------------------------------------------------------------------------------------- summary

    def failures(self) -> dict[str, dict[str, int]]:
        """Count the questions on which each model failed, per kind of error."""
        counts: dict[str, Counter[str]] = {}
        for model, output in self._outputs():
            if output.get("correct") is None and "cost_usd" not in output:
                counts.setdefault(model, Counter())[str(output.get("error", "unknown"))] += 1
        return {model: dict(count) for model, count in counts.items()}

    def ungraded(self) -> dict[str, int]:
        """Count the answers of each model that could not be graded."""
        return dict(
            Counter(m for m, output in self._outputs() if output.get("correct") is None and "cost_usd" in output)
        )

    def accuracy(self) -> dict[str, float | None]:
        """Return the mean score of each model, None for a model without scores."""
        scores: dict[str, list[float]] = {model: [] for model in self._models}
        for model, output in self._outputs():
            if output.get("correct") is not None:
                scores[model].append(output["correct"])
        return {model: sum(each) / len(each) if each else None for model, each in scores.items()}

    def outcome(self, question: Question, model: str) -> Output | None:
        """Return the outcome of a model, also of one that this collection does not ask."""
        return self._outcomes.outputs.get((question.id, model))

    def models_with_outcomes(self) -> set[str]:
        """Return every model with an outcome of one of the questions, also those that this collection does not ask."""
        return {model for _, model in self._outcomes.outputs}

    def mean_output_tokens(self) -> dict[str, float]:
        """Return the mean output tokens of each model that has answered."""
        lengths: dict[str, list[int]] = {}
        for answer in self._answers.values():
            lengths.setdefault(answer.model, []).append(answer.output_tokens)
        for (question_id, model), output in self._outcomes.outputs.items():
            if (question_id, model) not in self._answers and isinstance(output.get("output_tokens"), int):
                lengths.setdefault(model, []).append(output["output_tokens"])
        return {model: sum(each) / len(each) for model, each in lengths.items()}

    def _outputs(self) -> list[tuple[str, Output]]:
        return [(model, o) for (_, model), o in self._outcomes.outputs.items() if model in self._models]
