"""Find the final answer of a text, in one canonical form: an option's letter, a number, yes or no, a short text."""

from __future__ import annotations

import re

from eccos_core.grading.choice import ChoiceGrader, chosen_letter, options_in
from eccos_core.grading.exact import ExactGrader
from eccos_core.grading.mathematics import MathematicsGrader
from eccos_core.grading.number import Number, NumberGrader, numbers_in, simplify_notation, write_number
from eccos_core.grading.protocol import Grader
from eccos_core.grading.refusal import refuses
from eccos_core.grading.text import after_marker, first_sentence, normalise

LONGEST_ANSWER = 60
"""Characters of a short answer. A longer text is prose."""
_MOST_WORDS = 5  # of a short answer that no marker announces
_YES_OR_NO = {"yes": "yes", "no": "no", "true": "yes", "false": "no"}

_MARKUP = re.compile(
    r"\*\*|__|`|\\(?:text|mathrm|mathbf|textbf)\s*(?=\{)|\\[()\[\]]|(?<![\w\\])\$(?!\s?[\d.])|(?<=\S)\$"
)
_LEAD = re.compile(
    r"^\s*(?:(?:it|this|that|he|she|they)(?:\s+(?:is|was|are|were)|['’]s)\s+|(?:so|therefore|thus|hence)\b[,:]?\s*"
    r"|(?:approximately|about|roughly|around|exactly)\s+|≈\s*|[a-z]\s*=\s*|=\s*|:\s*)+",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    r"[,;:]\s|\s[-–—]\s|\s\(|\s(?:because|which|since|so|as|when|where|for|if|that|and then)\s|[.!?](?:\s|$)",
    re.IGNORECASE,
)
_YES_NO_FIRST = re.compile(r"\s*(yes|no|true|false)(?=\s*(?:[.,!:;\n]|[-–—]\s|$))", re.IGNORECASE)
_YES_NO_QUESTION = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|may|might|must|true or false)\b"
    r"|\b(?:yes or no|true or false)\b",
    re.IGNORECASE,
)
_OR_QUESTION = re.compile(r"\bor\b(?!\s+(?:no|false|not)\b)", re.IGNORECASE)
_ASKS_FOR_NUMBER = re.compile(
    r"\b(?:how (?:many|much|old|far|long|tall|high|heavy|deep|wide|fast|often)|calculate|compute|evaluate|in what year"
    r"|what year|what (?:number|percentage|percent|fraction)"
    r"|what (?:is|are|was|will be) (?:the |his |her |their |its )?(?:\w+ )?"
    r"(?:sum|total|number|product|difference|quotient|value|average|mean|median|area|volume|perimeter|probability"
    r"|percentage|cost|price|profit|speed|distance|remainder|age))\b|\d\s*[-+*/×÷^]\s*\d|=\s*\?",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"^(?:so|therefore|thus|hence|in total|altogether|overall|in conclusion|finally)\b", re.IGNORECASE
)
_RESULT = re.compile(r"=\s*([^=]+)$")
_ALGEBRA = re.compile(
    r"\d\s*(?:pi|π|√|sqrt|[xyznktei]|\^|\*|!|\\[a-z]+|\()(?![a-z0-9])"
    r"|(?:√|\^|\b(?:sqrt|log|ln|sin|cos|tan)\b|\b[a-z]\s*[-+*/^])\s*[({]*\s*\d"
    r"|\d\s*[-+*/]\s*[a-z]\b",
    re.IGNORECASE,
)
"""A number inside an expression: 2 pi, 3x, sqrt(2), x - 5."""
_CODE = re.compile(r"[{}\[\];<>]|\(\)|=[=>]")
_HEDGES = frozenset({"no idea", "not sure", "unknown", "n a", "unclear", "maybe", "it depends", "depends"})
_VERB = re.compile(r"\b(?:is|are|was|were|am|be|has|have|had|does|do|can|will|would|could|should|may|might|means)\b")


def extract_answer(text: str, question: str) -> str | None:
    """Return the final answer that a text gives to a question, in a canonical form. None for prose.

    - a letter, where the question lists options (`choice.options_in`),
    - a number, where the text announces it, or where the text is short or its end concludes with it,
    - "yes" or "no",
    - a short text of at most 60 characters, normalised.

    It would rather find nothing than the wrong thing. A refusal, two options and two numbers give None.
    """
    if not text.strip() or refuses(text):
        return None
    if options := options_in(question):
        return chosen_letter(text, options)
    plain = _MARKUP.sub("", text).strip()
    announced = after_marker(text)
    if announced is not None:
        return _announced_answer(_MARKUP.sub("", announced).strip(" :*"), question)
    if (found := _yes_or_no(plain, question)) is not None:
        return found
    if _ASKS_FOR_NUMBER.search(question):
        number = _concluding_number(plain)
        return None if number is None else _short(write_number(number))
    return _short_answer(plain)


def grader_answer(grader: Grader, text: str, question: str) -> str | None:
    """Return the final answer as the grader of the question reads it, in a canonical form. None where it is prose.

    The graders `number`, `multiple_choice`, `exact` and `math` say themselves what counts. For any other grader it is
    what `extract_answer` finds.
    """
    if isinstance(grader, NumberGrader):
        number = grader.answer_number(text)
        return None if number is None else _short(write_number(number))
    if isinstance(grader, ChoiceGrader):
        return grader.answer_letter(text, question)
    if isinstance(grader, ExactGrader):
        announced = after_marker(text)
        return _short(normalise(text if announced is None else first_sentence(announced)))
    if isinstance(grader, MathematicsGrader):
        announced = after_marker(text)
        return _mathematics(text if announced is None else announced)
    return extract_answer(text, question)


def _announced_answer(text: str, question: str) -> str | None:
    """Return the answer that follows a marker."""
    bare = _LEAD.sub("", text)
    if (found := _YES_NO_FIRST.match(bare)) is not None:
        return _YES_OR_NO[found[1].lower()]
    if (number := _leading_number(bare)) is not None:
        return _short(write_number(number))
    if _ASKS_FOR_NUMBER.search(question):
        number = _only_number(_first_clause(bare))
        if number is not None:
            return _short(write_number(number))
    return _short(normalise(first_sentence(bare)))


def _yes_or_no(text: str, question: str) -> str | None:
    """Return "yes" or "no" for a text that is one, or that starts with one where the question asks for one."""
    found = _YES_NO_FIRST.match(text)
    if found is None:
        return None
    last = question.strip().splitlines()[-1] if question.strip() else ""
    last = re.split(r"(?<=[.!:])\s+", last)[-1]
    asked = _YES_NO_QUESTION.search(last) is not None and not _OR_QUESTION.search(re.sub(r"\W+$", "", last))
    alone = not text[found.end() :].strip(" .!")
    return _YES_OR_NO[found[1].lower()] if asked or alone else None


def _concluding_number(text: str) -> Number | None:
    """Return the number of a short answer to a question for a number, or the one that a long answer ends with."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and len(text) <= LONGEST_ANSWER and "=" not in text:
        return _only_number(text)
    last = re.split(r"(?<=[.!?])\s+", lines[-1].strip())[-1].rstrip(" .!") if lines else ""
    if (result := _RESULT.search(last)) is not None:
        return _only_number(result[1])
    return _only_number(last) if _CONCLUDES.match(last) else None


def _leading_number(text: str) -> Number | None:
    """Return the number that a text begins with, if its first clause holds no other."""
    clause = _first_clause(text)
    if not re.match(r"[-−+(]?\s?(?:[$€£¥]\s?)?(?:\\[dt]?frac|\d|\.\d|[½⅓⅔¼¾])", clause):
        return None
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[a-z]+", "", clause))
    return _only_number(clause) if len(words) <= _MOST_WORDS else None


def _first_clause(text: str) -> str:
    found = _CLAUSE_END.search(text)
    return text if found is None else text[: found.start()]


def _only_number(text: str) -> Number | None:
    """Return the only number of a text. None for two different ones, and for a part of an expression."""
    if _ALGEBRA.search(simplify_notation(text)):
        return None
    numbers = numbers_in(text)
    return numbers[-1] if len({number.value for number in numbers}) == 1 else None


def _short_answer(text: str) -> str | None:
    """Return a text that is nothing but a short answer. A sentence with a verb is prose."""
    if len(text) > LONGEST_ANSWER or "\n" in text or text.endswith(("?", ":")):
        return None
    bare = _LEAD.sub("", text)
    if (number := _leading_number(bare)) is not None and len(bare.split()) <= 2:
        return _short(write_number(number))
    if _CODE.search(bare):
        return None
    found = normalise(bare)
    says_more = _YES_NO_FIRST.match(bare) or _VERB.search(found) or len(found.split()) > _MOST_WORDS
    if says_more or found in _HEDGES or not re.search(r"\w", found):
        return None
    return found


def _mathematics(text: str) -> str | None:
    """Return an expression without its delimiters and white space, or its number where it is one."""
    text = _MARKUP.sub("", text).strip().rstrip(".")
    if (number := _leading_number(text)) is not None and not re.search(r"[A-Za-z]", re.sub(r"\\[dt]?frac", "", text)):
        return _short(write_number(number))
    flat = re.sub(r"\s+", " ", re.sub(r"\\[dt]frac", r"\\frac", text)) if "\n" not in text else ""
    return _short(flat)


def _short(text: str) -> str | None:
    return text if 0 < len(text) <= LONGEST_ANSWER else None
