"""The outcomes file that a collection writes: one line per question, appended when all models have an outcome."""

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
"""One entry of `outputs`: model, correct, tokens, cost_usd and latency_s, or model, correct null and an error."""

_FEATURE_DECIMALS = 4
GRADING_FAILED = "grading"
"""The `error` of an output whose answer could not be graded. The answer was paid for, so it is kept."""


def answer_to_output(answer: AnswerEntry, grade: GradeEntry, keep_answer: bool) -> dict[str, Any]:
    """Make the output of a model that answered. It has the final `answer`, and the `features` of the answer.

    The whole `text` stands there with `keep_answer`. An ungraded answer keeps it, so that it is not paid for again.
    """
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
    if grade.answer is not None:
        output["answer"] = grade.answer
    if answer.features:
        output["features"] = {name: round(value, _FEATURE_DECIMALS) for name, value in answer.features.items()}
    if keep_answer or grade.score is None:
        output["text"] = answer.text
    if grade.score is None:
        output |= {"error": GRADING_FAILED, "error_message": grade.error}
    return output


def failure_to_output(failure: FailureEntry) -> dict[str, Any]:
    """Make the output of a model that failed. It has no score, so readers treat it as missing."""
    return {"model": failure.model, "correct": None, "error": failure.error, "error_message": failure.message}


def answer_from_output(output: Output, question: Question, digest: str) -> AnswerEntry | None:
    """Return the ungraded answer that an output holds, or None. Older files name its text `answer`."""
    text = output.get("text", output.get("answer") if "features" not in output else None)
    if not isinstance(text, str):
        return None
    return AnswerEntry(
        id=question.id,
        model=output["model"],
        digest=digest,
        text=text,
        input_tokens=output.get("input_tokens") or 0,
        output_tokens=output.get("output_tokens") or 0,
        cost_usd=output.get("cost_usd") or 0.0,
        latency_s=output.get("latency_s") or 0.0,
        finish_reason=output.get("finish_reason"),
        features=output.get("features") or {},
    )


class OutcomesFile:
    """Read an outcomes file, append to it, and put it in order at the end.

    Lines of other questions stay as they are. Raises `DataError` for a line that is no outcome, and for a question id
    that the file has with another text.
    """

    def __init__(self, path: Path, questions: Sequence[Question]) -> None:
        if path.suffix == ".gz":
            raise InputError(
                f"{path}: lines are appended one by one, which gzip cannot do well. Give a .jsonl file and compress it "
                "afterwards."
            )
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
            self._add_outputs(entry, question, number)

    def repair(self) -> None:
        """Remove a last line that a kill cut short, and add a missing line end."""
        content = self.path.read_bytes() if self.path.exists() else b""
        size = sum(len(line) for line in _whole_lines(self.path))
        if size < len(content):
            os.truncate(self.path, size)
        elif content and not content.endswith(b"\n"):
            _append(self.path, b"\n")

    def _add_outputs(self, entry: Mapping[str, Any], question: Question, number: int) -> None:
        if entry.get("query") != question.query:
            message = (
                f"id {question.id!r} stands here with another query. Give the question another id, or choose another "
                "--out."
            )
            raise DataError(str(self.path), message, number)
        outputs = entry.get("outputs")
        if not isinstance(outputs, list):
            raise DataError(
                str(self.path), f"id {question.id!r}: outputs is {describe(outputs)}, it must be a list", number
            )
        for output in outputs:
            if not isinstance(output, dict) or not isinstance(output.get("model"), str):
                raise DataError(
                    str(self.path),
                    f"id {question.id!r}: an output is {describe(output)}, it must be an object with a model",
                    number,
                )
            self.outputs[question.id, output["model"]] = output

    def append(self, question: Question, outputs: Iterable[Output]) -> None:
        """Append the line of a question and sync it to the disk."""
        _append(self.path, _line(question, outputs))

    def rewrite(self, models: Sequence[str]) -> None:
        """Write the whole file in order: lines of other questions first, then these in the order of their file.

        So an interrupted collection ends with the same file as one that was not interrupted.
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
    """Return the lines of a file with their ends, without a last line cut short. The journal holds its content."""
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
    """Append and sync a line, or change nothing and raise `InputError` if the disk is full or not writable."""
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
