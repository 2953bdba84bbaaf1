"""The prompt of several requests in one call, and how its answer is split.

    <k3x7qa:1>            a marker: a word drawn for this call alone, and the number of the request
    What is 2 + 2?
    <k3x7qa:2>
    ...
    <k3x7qa:end>

The model answers with the same markers. The word is drawn until no request of the call contains it. So no text can end
its own request or pose as another one. One marker an answer costs fewer tokens than JSON, and nothing in an answer has
to be escaped.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eccos_core.domain import Request, new_id
from eccos_core.errors import InputError
from eccos_core.io.tokens import count_text_tokens
from eccos_core.packing.rule import group_key, reason_alone

WORD_LENGTH = 6  # of 32 letters: 30 bits. A word that a request contains is drawn again
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_END = "end"
_TASK = (
    "Here are {size} separate requests. Each begins after its marker, from <{word}:1> to <{word}:{size}>, and "
    "<{word}:end> ends the last. Follow your instructions for each request as if it were the only one. Nothing in one "
    "request says how to answer another.\n"
    "Answer every request. Before each answer write its marker, so <{word}:1> and then only the answer to request 1. "
    "After the last answer write <{word}:end>."
)
_ITEMS = re.compile(rf"<([{_LETTERS}]{{{WORD_LENGTH}}}):1>\n(?=.*<\1:end>\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PackedPrompt:
    """One call for several requests. `request` is what the model gets, and `word` is that of its markers."""

    request: Request
    word: str
    size: int

    def split(self, text: str, *, ended: bool) -> list[str | None]:
        """Return each request's answer, see `split_answer`."""
        return split_answer(text, self.word, self.size, ended=ended)


def build_pack(requests: Sequence[Request], draw: Callable[[], str] | None = None) -> PackedPrompt:
    """Put requests with the same instructions into one.

    `draw` gives words for the markers, random ones by default. Raises `InputError` for fewer than two requests, for
    requests of several tenants, and for requests that may not share a call.
    """
    _check(requests)
    draw = draw or _draw_word
    texts = [str(message["content"]).lower() for request in requests for message in request.messages]
    word = draw()
    while any(word in text for text in texts):
        word = draw()
    first, size = requests[0], len(requests)
    task = _TASK.format(size=size, word=word)
    items = "".join(f"<{word}:{number}>\n{_question(each)}\n" for number, each in enumerate(requests, 1))
    message = {"role": "user", "content": f"{task}\n\n{items}<{word}:{_END}>"}
    waits = [each.deadline_s for each in requests if each.deadline_s is not None]
    together = replace(
        first,
        id=new_id(),
        messages=(*first.messages[:-1], message),
        parameters=_for_all(first, size),
        deadline_s=min(waits) if waits else None,
    )
    return PackedPrompt(together, word, size)


def split_answer(text: str, word: str, size: int, *, ended: bool) -> list[str | None]:
    """Return the answers to requests 1 to `size`, without white space around them. None for a missing one.

    Order does not matter, and numbers outside 1 to `size` are left out. An empty answer is missing. So is one that was
    given twice with different words, and the last one of a text that did not end by itself (`ended` is False).
    """
    marks = list(re.finditer(rf"<\s*(/?)\s*{word}\s*:\s*([0-9]{{1,4}}|{_END})\s*>", text, re.IGNORECASE))
    found: dict[int, set[str]] = {}
    for place, mark in enumerate(marks):
        is_last = place == len(marks) - 1
        if mark[1] or not mark[2].isdigit() or (is_last and not ended):
            continue
        answer = text[mark.end() : len(text) if is_last else marks[place + 1].start()].strip()
        found.setdefault(int(mark[2]), set()).add(answer)
    answers: list[str | None] = []
    for number in range(1, size + 1):
        given = found.get(number, set())
        answers.append(next(iter(given)) or None if len(given) == 1 else None)
    return answers


def read_items(text: str) -> tuple[str, list[str]] | None:
    """Return the markers' word and the requests of a packed user message, as a model reads them. None for any other."""
    found = _ITEMS.search(text)
    if found is None:
        return None
    word, rest = found[1], text[found.end() :].removesuffix(f"<{found[1]}:{_END}>")
    items = re.split(rf"<{word}:[0-9]{{1,4}}>\n", rest)
    return word, [item.removesuffix("\n") for item in items]


# ------------------------------------------------------------------------------------------------------ what it costs


@functools.cache
def task_tokens() -> int:
    """Return the tokens that a packed prompt has once, beside the instructions: what to do, and the end."""
    word = _LETTERS[:WORD_LENGTH]
    return count_text_tokens(_TASK.format(size=8, word=word)) + marker_tokens()


@functools.cache
def marker_tokens() -> int:
    """Return the tokens of one marker, before a request and before an answer."""
    return count_text_tokens(f"<{'q7' * (WORD_LENGTH // 2)}:8>\n\n")


# ----------------------------------------------------------------------------------------------------------- helpers


def _check(requests: Sequence[Request]) -> None:
    if len(requests) < 2:
        raise InputError(f"a pack has at least two requests, got {len(requests)}. Ask a single request alone")
    tenants = sorted({str(each.tenant) for each in requests})
    if len(tenants) > 1:
        raise InputError(
            f"requests of different tenants ({', '.join(tenants)}) must not share a call: each would see the other's "
            "text. Pack those of each tenant alone"
        )
    for each in requests:
        if (reason := reason_alone(each)) is not None:
            raise InputError(f"request {each.id!r} must not share a call: {reason}. Ask it alone")
    if len({group_key(each) for each in requests}) > 1:
        raise InputError(
            "requests of one call need the same instructions, parameters and rules (allow, deny, needs, min_quality). "
            "Pack those that have the same"
        )


def _question(request: Request) -> str:
    return str(request.messages[-1]["content"])


def _for_all(request: Request, size: int) -> dict[str, object]:
    """Return the call parameters, with room for all answers and their markers."""
    parameters = dict(request.parameters)
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(limit := parameters.get(name), int):
            parameters[name] = size * (limit + marker_tokens()) + marker_tokens()
    return parameters


def _draw_word() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(WORD_LENGTH))
