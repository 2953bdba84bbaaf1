"""Compare texts: decide which texts are the same answer, and find the answer in a long text."""

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
"""The marker before a final answer: `####`, `\\boxed{`, "The answer is", "Final answer:"."""


def normalise(text: str, *, articles: bool = False) -> str:
    """Remove what does not change an answer: Unicode form (NFKC), case, white space, punctuation, articles.

    What changes an answer stays: signs of numbers, characters between two digits (-5, 3.5, 1/2, 1914-1918), symbols
    (C++, C#, 50%) and accents. Thousands separators, apostrophes and the dots of abbreviations go. Hyphens and slashes
    between words become spaces. Articles stay with `articles`, or when the text has nothing else.
    """
    flat = _DASHES.sub("-", unicodedata.normalize("NFKC", text)).casefold()
    flat = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), flat)
    kept = "".join(_keep_character(flat, position) for position in range(len(flat)))
    words = kept.split()
    without_articles = [word for word in words if articles or word not in _ARTICLES]
    return " ".join(without_articles or words) or " ".join(flat.split())


def _keep_character(text: str, position: int) -> str:
    """Return what replaces one character: itself, a space, or nothing."""
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
    """Return the text after the last `####` or `\\boxed{`, else after the last "the answer is".

    The text ends at the closing brace or at the end of the line. Returns None without a marker or without such a text.
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
    """Return the text up to the first full stop, question or exclamation mark that ends a sentence."""
    return re.split(r"(?<=[^\s.][.!?])\s+(?=[A-Z\"(])", text.strip(), maxsplit=1)[0]
