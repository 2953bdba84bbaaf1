"""Text, made comparable: what counts as the same answer, and where in a long answer the answer is."""

from __future__ import annotations

import re
import unicodedata

_DASHES = re.compile(r"[\u2010-\u2015\u2212\uFE58\uFE63\uFF0D]")
_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?!\d|,\d)")
_KEPT_BETWEEN_DIGITS = ".,:/-"
_KEPT = "%#&@"
_JOINED = "'\u2019\u2018`.\u00b4"

MARKER = re.compile(
    r"####|\\boxed\s*\{"
    r"|\b(?:final\s+|correct\s+|right\s+|best\s+|my\s+)*(?:answer|solution|option|choice)\b"
    r"(?:\s+(?:is|would\s+be|should\s+be|must\s+be|equals)\b(?:\s*:)?|\s*[:=])"
    r"|\banswer(?=\s*\n)",
    re.IGNORECASE,
)
"""What an answer writes in front of its answer: `####`, `\\boxed{`, "The answer is", "Final answer:"."""


def normalise(text: str, *, articles: bool = False) -> str:
    """`text` without what does not make another answer: Unicode form (NFKC), case, white space, punctuation, articles.

    Kept, because it does make another answer: signs of numbers and what stands between two digits (-5, 3.5, 1/2,
    1914-1918; thousands separators go), symbols (C++, C#, 50%), accents. Hyphens and slashes between words are spaces,
    apostrophes and the dots of abbreviations vanish. An article stays when there is nothing else, and with `articles`.
    """
    flat = _DASHES.sub("-", unicodedata.normalize("NFKC", text)).casefold()
    flat = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), flat)
    kept = "".join(_kept(flat, position) for position in range(len(flat)))
    words = kept.split()
    without_articles = [word for word in words if articles or word not in _ARTICLES]
    return " ".join(without_articles or words) or " ".join(flat.split())


def _kept(text: str, position: int) -> str:
    """What becomes of one character: itself, a space, or nothing."""
    character = text[position]
    if not unicodedata.category(character).startswith("P"):
        return character
    before = text[position - 1] if position else " "
    after = text[position + 1] if position + 1 < len(text) else " "
    if character in _KEPT_BETWEEN_DIGITS and before.isdigit() and after.isdigit():
        return character
    if character == "-" and after.isdigit() and not before.isalnum():
        return character
    if character == "." and after.isdigit() and not before.isalnum():
        return character
    if character in _KEPT:
        return character
    return "" if character in _JOINED else " "


def after_marker(answer: str) -> str | None:
    """What follows the last `####` or `\\boxed{`, or else the last "the answer is": to the closing brace, or the end of
    the line.

    None when there is no such marker, or nothing after the last one.
    """
    markers = list(MARKER.finditer(answer))
    if not markers:
        return None
    typographic = [marker for marker in markers if marker.group().startswith(("####", "\\boxed"))]
    found = (typographic or markers)[-1]
    rest = answer[found.end() :]
    if found.group().startswith("\\boxed"):
        return _to_closing_brace(rest).strip() or None
    lines = rest.strip().splitlines()
    return lines[0].strip() if lines else None


def _to_closing_brace(text: str) -> str:
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:position]
    return text


def first_sentence(text: str) -> str:
    """Up to the first full stop, question or exclamation mark that ends a sentence."""
    return re.split(r"(?<=[^\s.][.!?])\s+(?=[A-Z\"(])", text.strip(), maxsplit=1)[0]
