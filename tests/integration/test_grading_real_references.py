"""Graders against the references of real benchmarks: every right answer is right, in every way that models write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eccos_core.grading import ExactGrader, Grader, grader_for, options_in
from eccos_core.grading.text import after_marker
from eccos_core.io.files import read_json_lines

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not on this machine"),
]


def rows(file: str, *datasets: str) -> list[dict[str, Any]]:
    return [row for _, row in read_json_lines(DATA / f"{file}.jsonl.gz") if row["dataset"] in datasets]


def wrong(grader: Grader, row: dict[str, Any], *answers: str) -> list[tuple[str, Any]]:
    return [(a, row["reference"]) for a in answers if grader.grade(a, row["reference"], row["query"]) != 1.0]


def test_the_letter_of_a_multiple_choice_question_is_found_however_it_is_written() -> None:
    grader = grader_for("multiple_choice")
    asked = rows("qa_math_mix9", "mmlu_pro")[::5]
    asked += rows("llmrouter_dcrouter", "mmlu", "gpqa", "commonsense_qa", "openbook_qa", "agentverse-logicgrid")
    missed, accepted = [], 0
    for row in asked:
        letter, options = row["reference"], options_in(row["query"])
        assert letter in options
        missed += wrong(grader, row, letter, f"({letter})", f"The answer is ({letter}).", f"**{letter}.** because")
        missed += wrong(grader, row, f"{letter}. {options[letter]}", f"It is so.\n\nAnswer: {letter}")
        others = [other for other in options if other != letter]
        accepted += sum(grader.grade(f"The answer is {other}.", letter, row["query"]) for other in others)
    assert len(asked) > 4000
    assert len(missed) <= 2, missed
    assert accepted == 0


def test_the_text_of_an_option_is_nearly_always_enough() -> None:
    grader = grader_for("multiple_choice")
    asked = rows("qa_math_mix9", "mmlu_pro")[::5]
    missed = [row["id"] for row in asked if wrong(grader, row, options_in(row["query"])[row["reference"]])]
    assert len(missed) <= 0.005 * len(asked), missed  # two options with one text cannot be told apart


def test_solutions_that_end_in_their_number_are_references() -> None:
    grader = grader_for("number")
    asked = rows("qa_math_mix9", "gsm8k") + rows("llmrouter_dcrouter", "gsm8k", "agentverse-mgsm")
    missed = []
    for row in asked:
        value = str(row["reference"]).rsplit("####", maxsplit=1)[-1].strip()
        missed += wrong(
            grader, row, value, f"The answer is {value}.", f"so \\boxed{{{value}}}", f"1 + 2 = ${value} dollars"
        )
        assert grader.grade(f"The answer is {value}1", row["reference"], "?") == 0.0
    assert len(asked) == 2119
    assert missed == []


def test_short_answers_are_their_own_references() -> None:
    exact, contains = ExactGrader(), grader_for("contains")
    asked = rows("llmrouter_dcrouter", "natural_qa", "trivia_qa")
    missed = []
    for row in asked:
        missed += wrong(exact, row, row["reference"] + ".", row["reference"].upper(), f"**{row['reference']}**")
        missed += wrong(contains, row, f"I believe it is {row['reference']}, yes")
    assert len(asked) == 1100
    assert missed == []


def test_mathematics_solutions_that_end_in_a_box_are_references() -> None:
    grader = grader_for("math")
    asked = rows("llmrouter_dcrouter", "math")[::4]
    missed = []
    for row in asked:
        value = after_marker(row["reference"])
        assert value is not None
        missed += wrong(grader, row, value, f"\\boxed{{{value}}}", f"The answer is ${value}$.")
        assert grader.grade("\\boxed{987654}", row["reference"], "?") == 0.0
    assert missed == []
