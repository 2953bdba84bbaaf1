"""The number grader: what is read as which number, and which number of an answer counts."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.errors import GradingError, InputError
from eccos_core.grading import NumberGrader, numbers_in

READ = [
    ("42", ["42"]),
    ("42.", ["42"]),
    ("1,234.50", ["1234.5"]),
    ("1,234,567", ["1234567"]),
    ("1.234,50 €", ["1234.5"]),
    ("1.234.567", ["1234567"]),
    ("12,34,567", ["1234567"]),
    ("1\u202f234", ["1234"]),
    ("1\u00a0234", ["1234"]),
    ("1'234", ["1234"]),
    ("1_234", ["1234"]),
    ("1{,}234", ["1234"]),
    ("1\\,234", ["1234"]),
    ("3,5", ["3.5"]),
    ("0,125", ["0.125"]),
    ("1,2,3", ["1", "2", "3"]),
    ("1, 2 and 3", ["1", "2", "3"]),
    (".5", ["0.5"]),
    ("-5", ["-5"]),
    ("−5", ["-5"]),
    ("minus 5", ["-5"]),
    ("(-5)", ["-5"]),
    ("x = -5", ["-5"]),
    ("$-5", ["-5"]),
    ("-$5", ["-5"]),
    ("5-3", ["5", "3"]),
    ("10 - 3", ["10", "3"]),
    ("- 7 apples", ["7"]),  # a list item
    ("3/4", ["3/4"]),
    ("1 3/4", ["7/4"]),
    ("½", ["1/2"]),
    ("1½", ["3/2"]),
    ("\\frac{3}{4}", ["3/4"]),
    ("\\dfrac34", ["3/4"]),
    ("-3/4", ["-3/4"]),
    ("5/0", []),
    ("3/14/2020", ["3", "14", "2020"]),
    ("1.2e3", ["1200"]),
    ("1.2E-3", ["0.0012"]),
    ("1.2 × 10^3", ["1200"]),
    ("1.2 \\times 10^{-3}", ["0.0012"]),
    ("10^5", ["100000"]),
    ("2.5 million", ["2500000"]),
    ("5km", ["5"]),
    ("the 8th", ["8"]),
    ("H2O and GPT-4", []),
    ("version 1.2.3", []),
    ("no number", []),
    ("", []),
    ("1e999999999", []),
    ("９", ["9"]),
    ("10:30", ["10", "30"]),
]


@pytest.mark.parametrize(("text", "numbers"), READ)
def test_numbers_are_read_as_people_write_them(text: str, numbers: list[str]) -> None:
    assert [number.value for number in numbers_in(text)] == [Fraction(number) for number in numbers]


GRADED: list[tuple[str, Any, float]] = [
    ("1,234.50", 1234.5, 1.0),
    ("The total is $1,234.50.", "1234.5", 1.0),
    ("1234.5 km", "1,234.50", 1.0),
    ("5 + 3 = 8", 8, 1.0),
    ("5 + 3 = 8", 5, 0.0),
    ("The answer is 8, since 5 + 3 is 8 and not 9.", 8, 1.0),
    ("There are 8 left.\n#### 8", "There were 12 - 4 = <<12-4=8>>8 left.\n#### 8", 1.0),
    ("\\boxed{72} (in step 3)", 72, 1.0),
    ("Answer: 72 of 100", 72, 1.0),
    ("The answer is unclear, maybe 7", 7, 1.0),
    ("0.5", "1/2", 1.0),
    ("\\frac{1}{2}", 0.5, 1.0),
    ("0.333", "1/3", 0.0),
    ("50%", 50, 1.0),
    ("50%", 0.5, 1.0),
    ("0.5", "50%", 1.0),
    ("50", "50 percent", 1.0),
    ("0.5", 50, 0.0),
    ("-7", 7, 0.0),
    ("7", -7, 0.0),
    ("7.0", 7, 1.0),
    ("1e3", 1000, 1.0),
    ("123456789", 123456788, 0.0),
    ("7", [6, 7], 1.0),
    ("8", [6, 7], 0.0),
    ("no idea", 7, 0.0),
    ("", 7, 0.0),
    ("9" * 6000, 9, 0.0),  # a model that never stops
    ("seven", 7, 0.0),  # words are not read: use exact
]


@pytest.mark.parametrize(("answer", "reference", "score"), GRADED)
def test_the_answers_number_is_compared_with_the_references(answer: str, reference: Any, score: float) -> None:
    assert NumberGrader().grade(answer, reference, "?") == score


@pytest.mark.parametrize(
    ("answer", "score"), [("7", 1.0), ("7 km, I said 7", 1.0), ("5 plus 2 is 7", 0.0), ("The answer is 7, not 8", 1.0)]
)
def test_with_only_an_answer_with_two_different_numbers_gave_none(answer: str, score: float) -> None:
    assert NumberGrader(which="only").grade(answer, 7, "?") == score


def test_a_tolerance_is_in_the_references_unit_and_a_relative_one_is_a_share_of_it() -> None:
    assert NumberGrader(tolerance=0.01).grade("3.14", 3.15, "?") == 1.0
    assert NumberGrader(tolerance=0.009).grade("3.14", 3.15, "?") == 0.0
    assert NumberGrader(relative_tolerance=0.01).grade("198", 200, "?") == 1.0
    assert NumberGrader(relative_tolerance=0.01).grade("197.9", 200, "?") == 0.0


@pytest.mark.parametrize("reference", ["no number", "between 3 and 5"])
def test_a_reference_that_is_not_one_number_is_an_error(reference: str) -> None:
    with pytest.raises(GradingError, match="reference that is a number"):
        NumberGrader().grade("4", reference, "?")


@pytest.mark.parametrize("options", [{"tolerance": -1}, {"relative_tolerance": "much"}, {"which": "first"}])
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        NumberGrader(**options)


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_a_number_is_found_again_however_it_is_written(mantissa: int, places: int) -> None:
    value = Fraction(mantissa, 10**places)
    digits = f"{mantissa / 10**places:,.{places}f}" if abs(mantissa) < 10**14 else str(mantissa)
    for written in (digits, digits.replace("-", "−"), f"The answer is {digits}.", f"{digits} metres", f"= {digits}"):
        assert NumberGrader(tolerance=1e-6).grade(written, float(value), "?") == 1.0
    if mantissa % 10 and places == 0:
        assert NumberGrader().grade(str(mantissa + 1), mantissa, "?") == 0.0


@given(st.text(alphabet="0123456789.,-/ %e^$½×x()", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert all(isinstance(number.value, Fraction) for number in numbers_in(text))
