"""Text from strangers, made safe to show and to encode."""

from __future__ import annotations

import html
import re
from typing import Any

# C0 and C1 controls but tab and line end (a terminal obeys them), marks that turn the direction of writing, and half
# characters
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with what a terminal could obey, or nobody can encode, as visible escapes (`\\x1b`, `\\ud83d`).

    Inside JSON the result is JSON still, except for `\\x`: use `printable_json` there.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_json(document: str) -> str:
    """A JSON document with the same characters as JSON's own escapes. It reads as the same value."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def html_text(text: str) -> str:
    """The text as HTML that shows it: no markup, and nothing that nobody can encode."""
    return html.escape(printable(text))


def repair(value: Any) -> Any:
    """The value with every half of a character in its texts joined to its other half, or replaced by U+FFFD.

    `value` is JSON: texts, numbers, mappings, lists.
    """
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {repair(name): repair(each) for name, each in value.items()}
        case list():
            return [repair(each) for each in value]
        case _:
            return value
