"""Tell an answer that refuses, or that says that it does not know."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r"\b(i('m| am) (sorry|unable|not able)|i (can('|no)t|could not|couldn't|do not|don't) "
    r"(help|assist|answer|provide|know|have|find|determine)|as an ai|no answer|cannot be determined)\b"
)


def refuses(text: str) -> bool:
    """Tell whether a text has the words of a refusal: "I'm sorry", "I cannot help", "I don't know"."""
    return _REFUSAL.search(text.lower().replace("\u2019", "'")) is not None
