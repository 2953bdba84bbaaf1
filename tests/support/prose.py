"""Measures how prose reads: sentence length, semicolons, how often it says "you", and how much code it shows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_CODE = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_NO_PROSE = ("|", "#", ">", "    ", "<!--", "![", ":::", "---")
_LONG = 30


@dataclass(frozen=True, slots=True)
class Prose:
    """What was counted: sentences, those of over 30 words, words, semicolons, "you", and code blocks."""

    sentences: int = 0
    long_sentences: int = 0
    words: int = 0
    semicolons: int = 0
    yous: int = 0
    code_blocks: int = 0

    def __add__(self, other: Prose) -> Prose:
        return Prose(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def words_per_sentence(self) -> float:
        """Mean length of a sentence in words."""
        return self.words / max(1, self.sentences)

    @property
    def long_share(self) -> float:
        """Share of sentences of over 30 words, in [0, 1]."""
        return self.long_sentences / max(1, self.sentences)

    def per_thousand(self, count: int) -> float:
        """How often something comes per 1,000 words."""
        return 1000 * count / max(1, self.words)


def measure(text: str) -> Prose:
    """Count the prose of one page. Code, tables, headings and the targets of links do not count."""
    said = [part.split() for part in _sentences(text)]
    plain = " ".join(" ".join(words) for words in said)
    return Prose(
        sentences=len(said),
        long_sentences=sum(len(words) > _LONG for words in said),
        words=sum(map(len, said)),
        semicolons=plain.count(";"),
        yous=len(re.findall(r"\b(?:you|your|yours)\b", plain, flags=re.IGNORECASE)),
        code_blocks=len(_CODE.findall(text)),
    )


def measure_all(texts: Iterable[str]) -> Prose:
    """Count several pages together."""
    return sum((measure(text) for text in texts), Prose())


def _sentences(text: str) -> list[str]:
    kept = [line for line in _CODE.sub("", text).splitlines() if not line.lstrip(" ").startswith(_NO_PROSE[:3])]
    kept = [line for line in kept if not line.startswith("    ") and not line.lstrip().startswith(_NO_PROSE[4:])]
    found = []
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", "\n".join(kept)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", block)
        plain = re.sub(r"`[^`]*`", "code", plain)
        plain = re.sub(r"[*_#>]", "", " ".join(plain.split()))
        found += [part for part in re.split(r"(?<=[.!?:])\s+(?=[A-Z`\"'(])", plain) if len(part.split()) > 1]
    return found
