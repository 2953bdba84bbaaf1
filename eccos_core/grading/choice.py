"""Multiple choice: which option an answer chose, by its letter or by its text."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eccos_core.errors import GradingError, InputError
from eccos_core.grading.protocol import Reference, accepted_answers
from eccos_core.grading.text import MARKER, after_marker, first_sentence, normalise

_OPTION_LINE = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]*(\S.*)$", re.MULTILINE)
_MARKDOWN = re.compile(r"[*_`$]|\\(?:text|mathrm|mathbf|textbf)\b|\\[()\[\]]")
_LETTER_ALONE = re.compile(r"[\s(\[{<\"']*([A-Za-z])[\s)\]}>.:,;!\"']*")
_LETTER_FIRST = re.compile(
    r"[\s(\[{<\"']*(?:(?i:option|choice|letter)\s+)?(?:([A-Z])(?![\w'’-])|(?<=[(\[])([a-z])[)\]]|([a-z])[.)](?!\w))"
)
_LETTER_NAMED = re.compile(
    r"\(([A-Za-z])\)|\b(?i:option|choice|letter)\s+[(\[]?([A-Za-z])\b"
    r"|\b(?i:choose|chose|select|selected|pick|picked)\s+[(\[]?([A-Z])\b"
)
_ANOTHER = re.compile(r"\s*[)\].]*\s*(?:,|/|&|\b(?:or|and)\b)\s*[(\[]*([A-Z])(?![\w'’])")
_PRONOUN = re.compile(
    r"\s+(?:think|believe|would|guess|am|was|do|don|can|cannot|could|will|have|need|know|chose|choose)\b"
)


def options_in(question: str) -> dict[str, str]:
    """The options that a question lists one a line, `A. text`, `A) text` or `(A) text`: letter to text.

    Only a run of letters from A on counts, the last one in the text; an empty mapping where there is none.
    """
    options: dict[str, str] = {}
    for found in _OPTION_LINE.finditer(question):
        letter = found[1] or found[2]
        if letter == "A":
            options = {}
        if letter == string.ascii_uppercase[len(options)]:
            options[letter] = found[3].strip()
    return options if len(options) > 1 else {}


@dataclass(frozen=True, slots=True)
class ChoiceGrader:
    """1 when the answer chose the reference's option. The reference is a letter, or the text of an option.

    `options`: the options' texts in order; without it they are read from the question. What an answer chose, by the
    first rule that says something:

    1. what follows "the answer is", `####` or `\\boxed{`: a letter alone, an option's text, a letter and more;
    2. the whole answer is a letter: `B`, `(b)`, `**B.**`; or an option's text;
    3. its first line is a letter, or starts with one as options do: `B. because`, `(B) Paris`;
    4. it names one single letter in brackets, or after "option", "choose" and the like;
    5. it holds the text of one single option.

    An answer that names two ("A or B") chose none, and is wrong.
    """

    options: tuple[str, ...] = ()
    name: str = "multiple_choice"

    def __post_init__(self) -> None:
        if len(self.options) > len(string.ascii_uppercase):
            raise InputError(f"multiple_choice grader: {len(self.options)} options, at most 26 have letters")

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """1.0 or 0.0. Raises `GradingError` when the reference is neither a letter nor the text of an option."""
        options = dict(zip(string.ascii_uppercase, self.options, strict=False)) or options_in(question)
        wanted = {self._letter_of_reference(text, options) for text in accepted_answers(reference, self.name)}
        return float(chosen_letter(answer, options) in wanted)

    def _letter_of_reference(self, text: str, options: Mapping[str, str]) -> str:
        letters = tuple(options) or tuple(string.ascii_uppercase)
        alone = _LETTER_ALONE.fullmatch(_MARKDOWN.sub("", text))
        letter = (alone and _known(_first_group(alone), letters)) or _by_text(text, options)
        if letter is None and re.match(r"\s*\(?[A-Z][).:]", text) and (first := _LETTER_FIRST.match(text)):
            letter = _known(_first_group(first), letters)
        if letter is not None:
            return letter
        listed = ", ".join(options) or "none could be read from the question"
        raise GradingError(
            f"the {self.name} grader needs a letter or the text of an option as reference, "
            f"got {text[:60]!r}; options: {listed}"
        )


def chosen_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer chose, or None when it chose none, or more than one."""
    letters = tuple(options) or tuple(string.ascii_uppercase)
    plain = _MARKDOWN.sub("", answer).strip()
    if (announced := after_marker(answer)) is not None:
        announced = _MARKDOWN.sub("", announced).strip(" :")
        if (found := _LETTER_ALONE.fullmatch(announced)) and (letter := _known(_first_group(found), letters)):
            return letter
        if letter := _by_text(announced, options) or _by_text(first_sentence(announced), options):
            return letter
        if found := _LETTER_FIRST.match(announced):
            return _sole_letter(found, announced, letters)
    if found := _LETTER_ALONE.fullmatch(plain):
        return _known(_first_group(found), letters)
    if letter := _by_text(plain, options):
        return letter
    first_line = plain.splitlines()[0] if plain else ""
    if found := _LETTER_ALONE.fullmatch(first_line):
        return _known(_first_group(found), letters)
    if re.match(r"(?:\([A-Za-z]\)|[A-Z][.):])(?:\s|$)", first_line) and (found := _LETTER_FIRST.match(first_line)):
        return _sole_letter(found, first_line, letters)
    named = {_known(_first_group(found), letters) for found in _LETTER_NAMED.finditer(MARKER.sub(" ", plain))}
    named.discard(None)
    if named:
        return named.pop() if len(named) == 1 else None
    return _sole_text(plain, options)


def _first_group(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()


def _known(letter: str, letters: Sequence[str]) -> str | None:
    return letter if letter in letters else None


def _sole_letter(found: re.Match[str], text: str, letters: Sequence[str]) -> str | None:
    """The letter that was found, unless another one is offered beside it, or it is the word I."""
    rest = text[found.end() :]
    letter = _first_group(found)
    another = _ANOTHER.match(rest)
    if another is not None and another[1].upper() in letters and another[1].upper() != letter:
        return None
    if letter == "I" and _PRONOUN.match(rest):
        return None
    return _known(letter, letters)


def _comparable(text: str) -> str:
    """Articles stay: "A and D" is not "D". Markup goes, on both sides alike."""
    return normalise(_MARKDOWN.sub("", text), articles=True)


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    bare = text.strip().rstrip(".")
    matches = [letter for letter, option in options.items() if bare and option.rstrip(".") == bare]
    if len(matches) == 1:
        return matches[0]  # "Bb BB" is not "bb Bb" where both are offered
    wanted = _comparable(text)
    matches = [letter for letter, option in options.items() if wanted and _comparable(option) == wanted]
    return matches[0] if len(matches) == 1 else None


def _sole_text(answer: str, options: Mapping[str, str]) -> str | None:
    """The option whose text stands in the answer, if just one does; an option within a longer one does not count."""
    text = f" {_comparable(answer)} "
    texts = {letter: _comparable(option) for letter, option in options.items()}
    found = {letter: option for letter, option in texts.items() if f" {option} " in text}
    longest = [
        letter
        for letter, mine in found.items()
        if not any(other != mine and f" {mine} " in f" {other} " for other in found.values())
    ]
    return longest[0] if len(longest) == 1 else None
