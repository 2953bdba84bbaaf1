"""Multiple choice: find the option that an answer chose, by its letter or by its text."""

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
    """Return the options of a question (letter to text), one per line: `A. text`, `A) text` or `(A) text`.

    Only a run of letters from A on counts, and only the last run. Without one the mapping is empty.
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
    """Score 1 when the answer chose the reference's option. The reference is a letter or the text of an option.

    `options`: the texts of the options in order. Without it they are read from the question. The first rule that
    applies decides which option an answer chose:

    1. The text after "the answer is", `####` or `\\boxed{` is a letter, an option's text, or starts with a letter.
    2. The whole answer is a letter (`B`, `(b)`, `**B.**`) or an option's text.
    3. Its first line is a letter or starts with one as options do: `B. because`, `(B) Paris`.
    4. It names a single letter in brackets, or after a word such as "option" or "choose".
    5. It contains the text of a single option.

    An answer that names two options ("A or B") chose none and is wrong.
    """

    options: tuple[str, ...] = ()
    name: str = "multiple_choice"

    def __post_init__(self) -> None:
        if len(self.options) > len(string.ascii_uppercase):
            raise InputError(f"multiple_choice grader: there are {len(self.options)} options, at most 26 are possible")

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return 1.0 or 0.0. Raises `GradingError` if the reference is neither a letter nor the text of an option."""
        options = self._options(question)
        wanted = {self._letter_of_reference(text, options) for text in accepted_answers(reference, self.name)}
        return float(chosen_letter(answer, options) in wanted)

    def answer_letter(self, answer: str, question: str) -> str | None:
        """Return the letter of the option that an answer chose. None if it chose none, or more than one."""
        return chosen_letter(answer, self._options(question))

    def _options(self, question: str) -> dict[str, str]:
        return dict(zip(string.ascii_uppercase, self.options, strict=False)) or options_in(question)

    def _letter_of_reference(self, text: str, options: Mapping[str, str]) -> str:
        letters = tuple(options) or tuple(string.ascii_uppercase)
        alone = _LETTER_ALONE.fullmatch(_MARKDOWN.sub("", text))
        letter = (alone and _letter_or_none(_first_group(alone), letters)) or _letter_of_text(text, options)
        if letter is None and re.match(r"\s*\(?[A-Z][).:]", text) and (first := _LETTER_FIRST.match(text)):
            letter = _letter_or_none(_first_group(first), letters)
        if letter is not None:
            return letter
        listed = ", ".join(options) or "none could be read from the question"
        raise GradingError(
            f"the {self.name} grader needs a letter or the text of an option as reference, "
            f"got {text[:60]!r}; options: {listed}"
        )


def chosen_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that an answer chose, None if it chose no option or more than one."""
    letters = tuple(options) or tuple(string.ascii_uppercase)
    plain = _MARKDOWN.sub("", answer).strip()
    if (announced := after_marker(answer)) is not None:
        announced = _MARKDOWN.sub("", announced).strip(" :")
        if (found := _LETTER_ALONE.fullmatch(announced)) and (letter := _letter_or_none(_first_group(found), letters)):
            return letter
        if letter := _letter_of_text(announced, options) or _letter_of_text(first_sentence(announced), options):
            return letter
        if found := _LETTER_FIRST.match(announced):
            return _only_letter(found, announced, letters)
    if found := _LETTER_ALONE.fullmatch(plain):
        return _letter_or_none(_first_group(found), letters)
    if letter := _letter_of_text(plain, options):
        return letter
    first_line = plain.splitlines()[0] if plain else ""
    if found := _LETTER_ALONE.fullmatch(first_line):
        return _letter_or_none(_first_group(found), letters)
    if re.match(r"(?:\([A-Za-z]\)|[A-Z][.):])(?:\s|$)", first_line) and (found := _LETTER_FIRST.match(first_line)):
        return _only_letter(found, first_line, letters)
    named = {_letter_or_none(_first_group(found), letters) for found in _LETTER_NAMED.finditer(MARKER.sub(" ", plain))}
    named.discard(None)
    if named:
        return named.pop() if len(named) == 1 else None
    return _only_option_in(plain, options)


def _first_group(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()


def _letter_or_none(letter: str, letters: Sequence[str]) -> str | None:
    return letter if letter in letters else None


def _only_letter(found: re.Match[str], text: str, letters: Sequence[str]) -> str | None:
    """Return the letter that was found, unless another one follows it ("A or B") or it is the word "I"."""
    rest = text[found.end() :]
    letter = _first_group(found)
    another = _ANOTHER.match(rest)
    if another is not None and another[1].upper() in letters and another[1].upper() != letter:
        return None
    if letter == "I" and _PRONOUN.match(rest):
        return None
    return _letter_or_none(letter, letters)


def _comparable(text: str) -> str:
    """Normalise a text without markup. Articles stay, because "A and D" is not "D"."""
    return normalise(_MARKDOWN.sub("", text), articles=True)


def _letter_of_text(text: str, options: Mapping[str, str]) -> str | None:
    bare = text.strip().rstrip(".")
    matches = [letter for letter, option in options.items() if bare and option.rstrip(".") == bare]
    if len(matches) == 1:
        return matches[0]  # "Bb BB" is not "bb Bb" where both are offered
    wanted = _comparable(text)
    matches = [letter for letter, option in options.items() if wanted and _comparable(option) == wanted]
    return matches[0] if len(matches) == 1 else None


def _only_option_in(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the only option whose text is in the answer. An option inside the text of a longer one does not count."""
    text = f" {_comparable(answer)} "
    texts = {letter: _comparable(option) for letter, option in options.items()}
    found = {letter: option for letter, option in texts.items() if f" {option} " in text}
    longest = [
        letter
        for letter, mine in found.items()
        if not any(other != mine and f" {mine} " in f" {other} " for other in found.values())
    ]
    return longest[0] if len(longest) == 1 else None
