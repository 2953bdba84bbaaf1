"""Find the number that an answer gives, in any notation, and compare it exactly."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from eccos_core.errors import GradingError, InputError
from eccos_core.grading.protocol import Reference, accepted_answers
from eccos_core.grading.text import after_marker

Which: TypeAlias = Literal["last", "only"]

_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
           "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}  # fmt: skip
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MAX_EXPONENT = 400  # beyond the range of a double, so larger ones are no sensible answers
_MAX_DIGITS = 400

_TEN_TO_THE = r"10\s*(?:\^|\*\*)\s*[{{(]?\s*(?P<{name}>[+-]?\d+)\s*[}})]?"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w.)])(?<![\d)%]\s)-)?                # a minus after a number, word or bracket is a difference
    (?:[$€£¥]\s?)?
    (?<![A-Za-z_\d.])(?<![A-Za-z]-)                     # not the 2 of H2O, not the 4 of GPT-4
    (?:
        (?:(?P<whole>\d+)\s+)?(?<!\d/)(?P<top>\d+)\s*/\s*(?P<bottom>\d+)(?![\d.,/]*\d)    # 3/4, 1 3/4
      | {_TEN_TO_THE.format(name="bare_power")}
      | (?P<decimal>\d[\d.,]*\d|\d|\.\d+)
        (?:e(?P<exponent>[+-]?\d+)(?!\w) | \s*(?:[x×*·]|\\times|\\cdot)\s*{_TEN_TO_THE.format(name="power")})?
    )
    (?P<percent>\s?%|\s+per\s?cent\b)?
    (?:\s+(?P<scale>thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SPACE_GROUP = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'_\u2019](?=\d{3}(?!\d))")


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a text: its exact value, and whether a percent sign follows it."""

    value: Fraction
    percent: bool = False


def numbers_in(text: str) -> list[Number]:
    """Return every number of a text, in order, as exact fractions.

    Each of these is one number: `1,234.50`, `1.234,50`, `1 234` (narrow or non-breaking space), `1'234`, `3/4`,
    `1 3/4`, `½`, `\\frac{3}{4}`, `-5`, `1.2e3`, `1.2 × 10^3`, `2.5 million`. A comma that cannot separate thousands is
    a decimal comma, as in `3,5`. Digits inside a name (H2O, GPT-4) and `1.2.3` are no numbers.
    """
    return [number for found in _NUMBER.finditer(simplify_notation(text)) for number in _parse_match(found)]


def sole_number(text: str) -> Number | None:
    """Return the number that a text is, None for a text that holds anything else. Units are something else."""
    found = _NUMBER.fullmatch(simplify_notation(text).strip())
    numbers = _parse_match(found) if found else []
    return numbers[0] if len(numbers) == 1 else None


def same_number(given: Number, wanted: Number, allowed: Fraction = Fraction(0)) -> bool:
    """Tell whether two numbers differ by at most `allowed`. 50% equals both 50 and 0.5."""
    pairs = [(given.value, wanted.value)]
    if given.percent and not wanted.percent:
        pairs.append((given.value / 100, wanted.value))
    if wanted.percent and not given.percent:
        pairs.append((given.value * 100, wanted.value))
    return any(abs(left - right) <= allowed for left, right in pairs)


def write_number(number: Number) -> str:
    """Write a number in one way: digits, a decimal point and a percent sign, or a fraction where no decimals end."""
    value, percent = number.value, "%" if number.percent else ""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{value.numerator}/{value.denominator}{percent}"
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs(int(value * 10**places))).rjust(places + 1, "0")
    whole, decimals = (digits[:-places], f".{digits[-places:]}") if places else (digits, "")
    return f"{'-' if value < 0 else ''}{whole}{decimals}{percent}"


def simplify_notation(text: str) -> str:
    """Replace the many ways to write a minus, a space or a fraction by one."""
    for character, fraction in _VULGAR.items():
        text = text.replace(character, f" {fraction}")
    text = re.sub(r"\{,\}", ",", text)
    text = re.sub(r"(?<=\d)\\[,;!](?=\d{3})", "\u202f", text)
    text = _SPACE_GROUP.sub("", text)
    text = re.sub(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", r" \1/\2", text)
    text = re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)(?!\d)", r" \1/\2", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\\%", "%").replace("\\$", "$")
    text = re.sub(r"[\u2212\u2010-\u2013]", "-", text)
    text = re.sub(r"\b(?:minus|negative)\s+(?=[\d.$])", " -", text, flags=re.IGNORECASE)
    return re.sub(r"-\s*\$\s?(?=[\d.])", "-", text)


def _parse_match(found: re.Match[str]) -> list[Number]:
    """Return one number, several for a list without spaces such as 1,2,3, or none for text that is no number."""
    if any(part is not None and len(part) > _MAX_DIGITS for part in found.groups()):
        return []
    power = int(found["exponent"] or found["power"] or found["bare_power"] or 0)
    if abs(power) > _MAX_EXPONENT:
        return []
    if found["top"] is not None:
        values = _fraction(int(found["whole"] or 0), int(found["top"]), int(found["bottom"]))
    elif found["bare_power"] is not None:
        values = [Fraction(1)]
    else:
        values = _decimals(found["decimal"])
    factor = Fraction(10) ** power * _SCALES.get((found["scale"] or "").lower(), 1) * (-1 if found["sign"] else 1)
    return [Number(value * factor, percent=bool(found["percent"])) for value in values]


def _fraction(whole: int, top: int, bottom: int) -> list[Fraction]:
    if bottom == 0:
        return []
    return [Fraction(top, bottom) + (whole if top < bottom else 0)]


def _decimals(token: str) -> list[Fraction]:
    """Parse digits, points and commas that end with a digit."""
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", token):  # 1,234.50
        token = token.replace(",", "")
    elif re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+,\d+|[1-9]\d{0,2}(\.\d{3}){2,}", token):  # 1.234,50 and 1.234.567
        token = token.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"[1-9]\d?(,\d{2})+,\d{3}(\.\d+)?", token):  # 12,34,567.89, as India writes it
        token = token.replace(",", "")
    elif re.fullmatch(r"\d+,\d+", token):  # 3,5
        token = token.replace(",", ".")
    return [Fraction(part) for part in token.split(",") if re.fullmatch(r"\d*\.?\d+", part)]


@dataclass(frozen=True, slots=True)
class NumberGrader:
    """Score 1 when the answer's number equals the reference's. Compares exact fractions: 0.5 is 1/2, 0.333 is not 1/3.

    The number of an answer is the first one after "the answer is", `####` or `\\boxed{`. Without a marker it is the
    last one (`which: last`) or the only one (`which: only`). With `only`, two different numbers count as no answer.
    Units are ignored, not converted. 50% equals both 50 and 0.5.

    tolerance: largest absolute difference. relative_tolerance: largest difference as a share of the reference.
    """

    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    which: Which = "last"
    name: str = "number"

    def __post_init__(self) -> None:
        for label, value in (("tolerance", self.tolerance), ("relative_tolerance", self.relative_tolerance)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
                raise InputError(f"number grader: {label} is {value!r}, it must be a number >= 0")
        if self.which not in ("last", "only"):
            raise InputError(f"number grader: which is {self.which!r}, it must be 'last' or 'only'")

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return 1.0 or 0.0. Raises `GradingError` if the reference has no number, or several without a marker."""
        wanted = [_reference_number(text) for text in accepted_answers(reference, self.name)]
        given = self.answer_number(answer)
        return float(given is not None and any(self._matches(given, each) for each in wanted))

    def answer_number(self, answer: str) -> Number | None:
        """Return the number that an answer gives. None if it gives none."""
        announced = after_marker(answer)
        if announced is not None and (numbers := numbers_in(announced)):
            return numbers[0]
        numbers = numbers_in(answer)
        if not numbers or (self.which == "only" and len({number.value for number in numbers}) > 1):
            return None
        return numbers[-1]

    def _matches(self, given: Number, wanted: Number) -> bool:
        allowed = Fraction(str(self.tolerance)) + Fraction(str(self.relative_tolerance)) * abs(wanted.value)
        return same_number(given, wanted, allowed)


def _reference_number(text: str) -> Number:
    announced = after_marker(text)
    if announced is not None and (numbers := numbers_in(announced)):
        return numbers[0]
    numbers = numbers_in(text)
    if len({number.value for number in numbers}) == 1:
        return numbers[0]
    found = "no number" if not numbers else f"{len(numbers)} numbers, and no '####' or \\boxed{{}} to say which"
    raise GradingError(f"the number grader needs a reference that is a number, {text[:60]!r} holds {found}")
