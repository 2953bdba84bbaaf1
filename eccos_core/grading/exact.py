"""Graders that compare words: the answer equals the reference (`exact`) or contains it (`contains`)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from eccos_core.grading.protocol import Reference, accepted_answers
from eccos_core.grading.text import after_marker, first_sentence, normalise


@dataclass(frozen=True, slots=True)
class ExactGrader:
    """Score 1 when the answer equals one of the references after `normalise`.

    A short answer inside a sentence counts only after a marker: "The answer is Paris.", `\\boxed{Paris}`, `#### Paris`.
    "I think it is Paris" does not count. Use `contains` to accept it.
    """

    name: str = "exact"

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return 1.0 or 0.0."""
        wanted = {normalise(text) for text in accepted_answers(reference, self.name)}
        candidates = [answer]
        if (announced := after_marker(answer)) is not None:
            candidates += [announced, first_sentence(announced)]
        return float(any(normalise(candidate) in wanted for candidate in candidates))


@dataclass(frozen=True, slots=True)
class ContainsGrader:
    """Score 1 when the answer contains a reference as whole words after `normalise`: "Paris" is not in "comparison".

    `every`: score the share of the references that the answer contains, for questions with several right answers.
    """

    every: bool = False
    name: str = "contains"

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """Return 1.0 or 0.0. With `every`, return the share that was found."""
        wanted = accepted_answers(reference, self.name)
        text = normalise(answer)
        found = [_contains_words(normalise(each), text) for each in wanted]
        return sum(found) / len(found) if self.every else float(any(found))


def _contains_words(wanted: str, text: str) -> bool:
    if any(_writes_without_spaces(character) for character in wanted):
        return wanted in text
    return f" {wanted} " in f" {text} "


def _writes_without_spaces(character: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))
