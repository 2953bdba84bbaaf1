"""Graders of words: the whole answer is the reference (`exact`), or the reference is somewhere in it (`contains`)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from eccos_core.grading.protocol import Reference, accepted_answers
from eccos_core.grading.text import after_marker, first_sentence, normalise


@dataclass(frozen=True, slots=True)
class ExactGrader:
    """1 when the answer, normalised, is one of the references, normalised (see `normalise`).

    A short answer inside a sentence is right only where the sentence says that the answer follows: "The answer is
    Paris.", `\\boxed{Paris}`, `#### Paris`. "I think it is Paris" is not: `contains` would accept it.
    """

    name: str = "exact"

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """1.0 or 0.0."""
        wanted = {normalise(text) for text in accepted_answers(reference, self.name)}
        candidates = [answer]
        if (announced := after_marker(answer)) is not None:
            candidates += [announced, first_sentence(announced)]
        return float(any(normalise(candidate) in wanted for candidate in candidates))


@dataclass(frozen=True, slots=True)
class ContainsGrader:
    """1 when a reference stands in the answer as whole words, both normalised: "Paris" is not in "comparison".

    `every`: the score is the share of the references that stand in it, for questions that ask for several things.
    """

    every: bool = False
    name: str = "contains"

    def grade(self, answer: str, reference: Reference, question: str) -> float:
        """1.0 or 0.0; with `every` the share found."""
        wanted = accepted_answers(reference, self.name)
        text = normalise(answer)
        found = [_stands_in(normalise(each), text) for each in wanted]
        return sum(found) / len(found) if self.every else float(any(found))


def _stands_in(wanted: str, text: str) -> bool:
    if any(_writes_without_spaces(character) for character in wanted):
        return wanted in text
    return f" {wanted} " in f" {text} "


def _writes_without_spaces(character: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))
