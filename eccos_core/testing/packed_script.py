"""What the test server says to several requests in one call (`eccos_core.packing`).

Each request is answered as it would be alone. Directives in a request say what goes wrong:

    [[missing]]   no answer to this request        [[twice]]    two different answers to it
    [[extra]]     also an answer to no request     [[shuffle]]  answers in another order (for the whole call)
    [[unsplit]]   one answer without markers, for the whole call
"""

from __future__ import annotations

import random
from collections.abc import Callable

from eccos_core.packing.prompt import read_items


def packed_text(asked: str, answer: Callable[[str], str]) -> str | None:
    """Return the text that answers a packed message. None for any other message. `answer` answers one request."""
    read = read_items(asked)
    if read is None:
        return None
    word, items = read
    if "[[unsplit]]" in asked:
        return "\n".join(map(answer, items))
    given: list[tuple[int, str]] = []
    for number, item in enumerate(items, 1):
        if "[[missing]]" not in item:
            given.append((number, answer(item)))
        if "[[twice]]" in item and "[[missing]]" not in item:
            given.append((number, "Or something else"))
        if "[[extra]]" in item:
            given.append((len(items) + number, "Nobody asked"))
    if "[[shuffle]]" in asked:
        random.Random(word).shuffle(given)  # noqa: S311 - an order, no secret
    return "\n".join([*(f"<{word}:{number}>\n{text}" for number, text in given), f"<{word}:end>"])
