"""Questions for the pocket pool, as many as one wants, each with its reference answer.

Whether a question is for training or held out is a property of what it asks (see :func:`split_of`), so that no
seed, order or count can ever bring a held-out question into training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from random import Random
from typing import Any, Literal

from eccos_core.errors import InputError
from eccos_core.pocket.knowledge import Drawn, knowledge_families
from eccos_core.pocket.mathematics import mathematics_families

__all__ = [
    "HELD_OUT_SHARE",
    "PocketQuestion",
    "Split",
    "TrainingMix",
    "draw_questions",
    "family_names",
    "generate_questions",
    "split_of",
]

Split = Literal["train", "heldout"]
Subject = Literal["knowledge", "mathematics"]
HELD_OUT_SHARE = 0.3
_DRAWS_WITHOUT_NEWS = 20_000


@dataclass(frozen=True, slots=True)
class PocketQuestion:
    """One question. ``dataset`` is its family, ``difficulty`` runs from 1 to 5, ``grader`` is "exact" or "number"."""

    id: str
    dataset: str
    subject: Subject
    difficulty: int
    query: str
    reference: str
    grader: str

    def as_row(self) -> dict[str, Any]:
        """The question as ``eccos collect`` reads it: one JSON object of plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainingMix:
    """What a model is taught, or what a sample holds.

    ``knowledge_share``: share of knowledge questions, 0 to 1, the rest is mathematics.
    ``hardest_fact`` and ``hardest_calculation``: questions up to this difficulty, 1 to 5.
    ``families``: these only; empty means all.
    """

    knowledge_share: float = 0.5
    hardest_fact: int = 5
    hardest_calculation: int = 5
    families: tuple[str, ...] = ()


def family_names(subject: Subject | None = None) -> tuple[str, ...]:
    """Names of all families, or of one subject's."""
    knowledge = tuple(family.name for family in knowledge_families())
    mathematics = tuple(family.name for family in mathematics_families())
    return {"knowledge": knowledge, "mathematics": mathematics, None: knowledge + mathematics}[subject]


def split_of(family: str, key: str) -> Split:
    """The split that a question belongs to: a hash of what it asks, the same in every process."""
    digest = sha256(f"{family}|{key}".encode()).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE else "train"


def draw_questions(random: Random, split: Split, diet: TrainingMix | None = None) -> Iterator[PocketQuestion]:
    """Questions of one split without end; they repeat, as training wants."""
    diet = diet or TrainingMix()
    wanted = set(diet.families)
    if unknown := wanted - set(family_names()):
        raise InputError(f"unknown question families {sorted(unknown)}; known: {', '.join(family_names())}")
    knowledge = [family for family in knowledge_families() if not wanted or family.name in wanted]
    mathematics = [family for family in mathematics_families() if not wanted or family.name in wanted]
    share = diet.knowledge_share if knowledge and mathematics else float(bool(knowledge))
    knowledge_weights = [family.weight for family in knowledge]
    mathematics_weights = [family.weight for family in mathematics]
    while True:
        if random.random() < share:
            fact = random.choices(knowledge, knowledge_weights)[0]
            drawn = fact.draw(random)
            if drawn.difficulty <= diet.hardest_fact and split_of(fact.name, drawn.key) == split:
                yield _question(fact.name, "knowledge", fact.grader, drawn)
        else:
            calculation = random.choices(mathematics, mathematics_weights)[0]
            drawn = calculation.draw(random)
            if drawn.difficulty <= diet.hardest_calculation and split_of(calculation.name, drawn.key) == split:
                yield _question(calculation.name, "mathematics", calculation.grader, drawn)


def generate_questions(
    count: int, seed: int, split: Split = "heldout", diet: TrainingMix | None = None
) -> list[PocketQuestion]:
    """``count`` questions of one split, no two with the same text; the same arguments always give the same list.

    Raises ``InputError`` if ``count`` is negative or if so many distinct questions cannot be found.
    """
    if count < 0:
        raise InputError(f"count must be at least 0, it is {count}")
    found: dict[str, PocketQuestion] = {}
    if count == 0:
        return []
    stale = 0
    random = Random(seed)  # noqa: S311  # a repeatable list is the point
    for question in draw_questions(random, split, diet):
        stale = stale + 1 if question.query in found else 0
        found.setdefault(question.query, question)
        if len(found) == count:
            break
        if stale > _DRAWS_WITHOUT_NEWS:
            raise InputError(
                f"only {len(found)} distinct {split} questions found, {count} wanted: "
                "ask for fewer or allow more families"
            )
    return list(found.values())


def _question(family: str, subject: Subject, grader: str, drawn: Drawn) -> PocketQuestion:
    digest = sha256(drawn.query.encode()).hexdigest()[:12]
    return PocketQuestion(f"{family}-{digest}", family, subject, drawn.difficulty, drawn.query, drawn.reference, grader)
