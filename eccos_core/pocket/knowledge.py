"""Knowledge questions of the pocket pool: one fact, asked in many wordings.

The facts and the wordings are data (``facts.json``); every list of facts begins with the best-known ones,
so that the difficulty of a question rises along its list.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random

__all__ = ["Drawn", "KnowledgeFamily", "knowledge_families", "openings"]

_SHORT_LIST = 40


@dataclass(frozen=True, slots=True)
class Drawn:
    """One drawn question. ``key`` is what must never be seen in training if the question is held out."""

    key: str
    query: str
    reference: str
    difficulty: int


@dataclass(frozen=True, slots=True)
class KnowledgeFamily:
    """Facts of one kind, best known first, and the sentences that ask for them."""

    name: str
    grader: str
    difficulty: int
    wordings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]

    @property
    def weight(self) -> float:
        """Share of this family among knowledge questions: the square root keeps small lists visible."""
        return math.sqrt(len(self.facts))

    def draw(self, random: Random) -> Drawn:
        """Draw a fact, a wording and an opening.

        The middle third of a long list is one degree more difficult than the first, the last third two degrees.
        """
        rank = random.randrange(len(self.facts))
        subject, reference = self.facts[rank]
        opening = random.choice(openings())
        wording = random.choice(self.wordings)
        sentence = wording.format(subject)
        query = opening + sentence[0].upper() + sentence[1:]
        rarity = rank * 3 // len(self.facts) if len(self.facts) > _SHORT_LIST else 0
        return Drawn(f"{opening}|{wording}|{subject}", query, reference, min(5, self.difficulty + rarity))


@cache
def _facts() -> dict[str, object]:
    text = files("eccos_core.pocket").joinpath("facts.json").read_text(encoding="utf-8")
    facts: dict[str, object] = json.loads(text)
    return facts


@cache
def openings() -> tuple[str, ...]:
    """What may stand before any question, the empty string included."""
    found = _facts()["openings"]
    assert isinstance(found, list)
    return tuple(str(opening) for opening in found)


@cache
def knowledge_families() -> tuple[KnowledgeFamily, ...]:
    """Every family of ``facts.json``, in the order of the file."""
    found = _facts()["families"]
    assert isinstance(found, dict)
    return tuple(
        KnowledgeFamily(
            name=name,
            grader=family["grader"],
            difficulty=family["difficulty"],
            wordings=tuple(family["wordings"]),
            facts=tuple((subject, answer) for subject, answer in family["facts"]),
        )
        for name, family in found.items()
    )
