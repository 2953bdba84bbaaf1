"""The graded answers of an outcomes file that keeps their texts (`eccos collect --keep-answers`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.errors import DataError
from eccos_core.io.files import describe, read_json_lines
from eccos_core.io.outcomes import read_outcomes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to a question. `output_tokens` and `finish_reason` are None where nobody recorded them."""

    question: str
    model: str
    text: str
    output_tokens: int | None = None
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """An answer and its quality in [0, 1]."""

    answer: Answer
    quality: float


def read_answers(path: str | Path) -> list[GradedAnswer]:
    """Return each answer of an outcomes file that has both a `text` and a grade, every run of `attempts` for itself.

    A model that gives the same answer to a question again counts once. Where no output of a file has a `text`, the
    file may be an older one, which has it under `answer`. Outputs with `features` are never that old.

    Raises `DataError` for what `read_outcomes` refuses, and for a `text` that is no text.
    """
    read_outcomes(path)  # names everything that is wrong with the file
    texts: dict[tuple[str, str, str], GradedAnswer] = {}
    older: dict[tuple[str, str, str], GradedAnswer] = {}
    for line, entry in read_json_lines(path):
        for output in entry["outputs"]:
            for run in output.get("attempts", [output]):
                text = run.get("text")
                if text is not None and not isinstance(text, str):
                    place = f"id {entry['id']!r} ({output['model']})"
                    raise DataError(str(path), f"{place}: text is {describe(text)}, must be a text or null", line)
                found = texts
                if text is None and "features" not in run and isinstance(run.get("answer"), str):
                    text, found = run["answer"], older
                if text and text.strip() and run.get("correct") is not None:
                    answer = _answer(entry["query"], output["model"], text, run)
                    found[str(entry["id"]), answer.model, text] = GradedAnswer(answer, float(run["correct"]))
    return list((texts or older).values())


def _answer(question: str, model: str, text: str, run: dict[str, Any]) -> Answer:
    tokens, reason = run.get("output_tokens"), run.get("finish_reason")
    return Answer(
        question,
        model,
        text,
        None if tokens is None else int(tokens),
        reason if isinstance(reason, str) else None,
    )
