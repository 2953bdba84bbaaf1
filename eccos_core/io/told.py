"""What an outcomes file keeps of an answer itself: its final `answer`, and its `features`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eccos_core.domain import ANSWER_FEATURES, check_answer_feature
from eccos_core.errors import DataError, InputError, did_you_mean
from eccos_core.io.files import describe


@dataclass(frozen=True, slots=True)
class Told:
    """What one output says of its answer. `answer` is None where unknown. `features` holds the known ones."""

    answer: str | None = None
    features: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.answer is not None or bool(self.features)


NOTHING_TOLD = Told()


def read_told(output: Mapping[str, Any], place: str, file: str, line: int) -> Told:
    """Read `answer` and `features` of an output. Of `attempts` it is what all runs say, and the mean of features.

    Raises `DataError` for an answer that is neither a text nor a number, an unknown feature, and one out of its range.
    """
    if "attempts" in output:
        runs = [
            read_told(run, f"{place}: attempts[{number}]", file, line) for number, run in enumerate(output["attempts"])
        ]
        answers = {run.answer for run in runs}
        named: dict[str, list[float]] = {}
        for run in runs:
            for name, value in run.features.items():
                named.setdefault(name, []).append(value)
        means = {name: math.fsum(values) / len(values) for name, values in named.items()}
        return Told(answers.pop() if len(answers) == 1 else None, means)
    return Told(_answer(output, place, file, line), _features(output, place, file, line))


def _answer(output: Mapping[str, Any], place: str, file: str, line: int) -> str | None:
    value = output.get("answer")
    if isinstance(value, bool) or not (value is None or isinstance(value, (str, int, float))):
        raise DataError(file, f"{place}: answer is {describe(value)}, must be a text, a number or null", line)
    text = None if value is None else str(value).strip()
    return text or None


def _features(output: Mapping[str, Any], place: str, file: str, line: int) -> dict[str, float]:
    given = output.get("features")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise DataError(file, f"{place}: features is {describe(given)}, must be an object of names and numbers", line)
    found: dict[str, float] = {}
    for name, value in given.items():
        if name not in ANSWER_FEATURES:
            hint = did_you_mean(name, ANSWER_FEATURES)
            known = ", ".join(ANSWER_FEATURES)
            raise DataError(file, f"{place}: unknown feature {name!r}{hint or '.'} There are: {known}", line)
        if value is None:
            continue
        if not isinstance(value, (int, float, bool)):
            raise DataError(file, f"{place}: feature {name} is {describe(value)}, must be a number or null", line)
        try:
            check_answer_feature(name, float(value))
        except InputError as error:
            raise DataError(file, f"{place}: feature {error}", line) from error
        found[name] = float(value)
    return found


def merge_told(before: Told, after: Told, first: tuple[str, int], file: str, line: int) -> Told:
    """Put together what two lines say of one answer. `first`: its place and the line of the first.

    Raises `DataError` where they contradict each other.
    """
    place, first_line = first
    pairs = {"answer": (before.answer, after.answer)} | {
        name: (before.features.get(name), after.features.get(name)) for name in after.features
    }
    for name, (old, new) in pairs.items():
        if old is not None and new is not None and old != new:
            message = f"{place} has {name} {new!r} here and {old!r} on line {first_line}. Remove one of the two"
            raise DataError(file, message, line)
    answer = before.answer if after.answer is None else after.answer
    return Told(answer, {**before.features, **after.features})
