"""The outcomes file that a collection writes: one line per question, appended when all its models are in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from eccos_core.collecting.journal import AnswerEntry, Cell, FailureEntry, GradeEntry
from eccos_core.collecting.questions import Question
from eccos_core.errors import DataError, InputError
from eccos_core.io.files import atomic_writer, describe, parse_object

Output: TypeAlias = Mapping[str, Any]
"""One entry of `outputs`: model, correct, tokens, cost_usd, latency_s; or model, correct null, error, error_message."""

GRADING_FAILED = "grading"
"""The `error` of an output whose answer was paid for and is kept, but could not be graded."""


def output_of(answer: AnswerEntry, grade: GradeEntry, keep_answer: bool) -> dict[str, Any]:
    """The output of a model that answered. An answer without a score is kept, so that it need not be asked again."""
    output: dict[str, Any] = {
        "model": answer.model,
        "correct": grade.score,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "cost_usd": round(answer.cost_usd, 12),
        "latency_s": round(answer.latency_s, 4),
    }
    if answer.finish_reason not in (None, "stop"):
        output["finish_reason"] = answer.finish_reason
    if grade.cost_usd:
        output["grading_usd"] = round(grade.cost_usd, 12)
    if keep_answer or grade.score is None:
        output["answer"] = answer.text
    if grade.score is None:
        output |= {"error": GRADING_FAILED, "error_message": grade.error}
    return output


def output_of_failure(failure: FailureEntry) -> dict[str, Any]:
    """The output of a model that could not be asked: no score, which readers take for missing."""
    return {"model": failure.model, "correct": None, "error": failure.error, "error_message": failure.message}


def answer_in(output: Output, question: Question, digest: str) -> AnswerEntry | None:
    """The answer that an output kept, or None."""
    if not isinstance(output.get("answer"), str):
        return None
    return AnswerEntry(
        id=question.id,
        model=output["model"],
        digest=digest,
        text=output["answer"],
        input_tokens=output.get("input_tokens") or 0,
        output_tokens=output.get("output_tokens") or 0,
        cost_usd=output.get("cost_usd") or 0.0,
        latency_s=output.get("latency_s") or 0.0,
        finish_reason=output.get("finish_reason"),
    )


class OutcomesFile:
    """Reads what an outcomes file holds about some questions, appends to it, and puts it in order at the end.

    Lines of other questions are left as they are. Raises `DataError` for a line that is no outcome, and for a question
    whose id stands there with another text.
    """

    def __init__(self, path: Path, questions: Sequence[Question]) -> None:
        if path.suffix == ".gz":
            raise InputError(f"{path}: lines are appended, which gzip cannot do well; give a .jsonl and pack it after")
        self.path = path
        self._questions = {question.id: question for question in questions}
        self._others: list[bytes] = []
        self.outputs: dict[Cell, Output] = {}
        for number, line in enumerate(_whole_lines(path), start=1):
            if line.strip():
                self._read(line, number)

    def _read(self, line: bytes, number: int) -> None:
        entry = parse_object(line.removeprefix(b"\xef\xbb\xbf"), str(self.path), number)
        question = self._questions.get(str(entry.get("id")))
        if question is None:
            self._others.append(line)
        else:
            self._take(entry, question, number)

    def repair(self) -> None:
        """Removes a last line that was cut short by a kill; ends a whole one that lacks its line end."""
        content = self.path.read_bytes() if self.path.exists() else b""
        size = sum(len(line) for line in _whole_lines(self.path))
        if size < len(content):
            os.truncate(self.path, size)
        elif content and not content.endswith(b"\n"):
            _append(self.path, b"\n")

    def _take(self, entry: Mapping[str, Any], question: Question, number: int) -> None:
        if entry.get("query") != question.query:
            message = (
                f"id {question.id!r} stands here with another query; give the question another id, or another --out"
            )
            raise DataError(str(self.path), message, number)
        outputs = entry.get("outputs")
        if not isinstance(outputs, list):
            raise DataError(
                str(self.path), f"id {question.id!r}: outputs is {describe(outputs)}, must be a list", number
            )
        for output in outputs:
            if not isinstance(output, dict) or not isinstance(output.get("model"), str):
                raise DataError(str(self.path), f"id {question.id!r}: an output is {describe(output)}", number)
            self.outputs[question.id, output["model"]] = output

    def append(self, question: Question, outputs: Iterable[Output]) -> None:
        """One line, forced to the disk."""
        _append(self.path, _line(question, outputs))

    def rewrite(self, models: Sequence[str]) -> None:
        """The whole file in order: lines of other questions first, then these, as their file has them, each once.

        The file that an interrupted collection ends with is therefore the one of a collection that was not.
        """
        by_question: dict[str, dict[str, Output]] = {}
        for (question_id, model), output in self.outputs.items():
            by_question.setdefault(question_id, {})[model] = output
        lines = [line.rstrip(b"\r\n") + b"\n" for line in self._others]
        for question in self._questions.values():
            if question.id in by_question:
                known = by_question[question.id]
                order = [*models, *(model for model in known if model not in models)]
                lines.append(_line(question, [known[model] for model in order if model in known]))
        try:
            with atomic_writer(self.path) as stream:
                stream.writelines(lines)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file with their ends; a last one that was cut short is left out: the journal has what is in it."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        try:
            parse_object(lines[-1], str(path), None)
        except DataError:
            lines.pop()
    return lines


def _line(question: Question, outputs: Iterable[Output]) -> bytes:
    entry: dict[str, Any] = {"id": question.id, **question.extras, "query": question.query}
    if question.has_messages:
        entry["messages"] = list(question.messages)
    entry |= {"reference": question.reference, "grader": question.grader, "outputs": list(outputs)}
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _append(path: Path, line: bytes) -> None:
    """Raises `InputError` when the disk is full or the file not writable; then nothing was appended."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
