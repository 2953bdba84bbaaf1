"""Which answers to one question say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from eccos_core.answers.extraction import extract_answer
from eccos_core.domain import Completion, FloatArray
from eccos_core.grading.number import same_number, sole_number
from eccos_core.grading.text import normalise
from eccos_core.protocols import Encoder

UNRELATED_COSINE, SAME_COSINE = 0.3, 0.9
"""Cosine similarities of two proses about different things (agreement 0), and of one said twice (agreement 1).

A crude choice. An encoder sees the topic and hardly the claim: of six questions, two true answers in other words had
0.65 to 0.89 on all-MiniLM-L6-v2, and a true and a false one had 0.55 to 0.91. So this finds an answer beside the point,
and no contradiction.
"""

ToolCall: TypeAlias = tuple[str, str]
"""A tool's name, and its arguments as JSON with sorted keys (as the model wrote them where they are no JSON)."""


@dataclass(frozen=True, slots=True)
class SeenAnswer:
    """One answer to a question, as far as equality goes.

    `final` is the canonical final answer, None for prose. `tool_calls` are compared in place of the text, where there
    are any. An answer of an outcomes file has its `final` alone.
    """

    text: str = ""
    final: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, completion: Completion, question: str) -> SeenAnswer:
        """Read a completion. `question` is the text of the request, as `conversation_text` gives it."""
        calls = read_tool_calls(completion)
        final = None if calls else extract_answer(completion.text, question)
        return cls(completion.text, final, tuple((name, _sorted_json(arguments)) for name, arguments in calls))


def agreement(answers: Sequence[SeenAnswer], encoder: Encoder | None = None) -> FloatArray:
    """Return how far each two of K answers to one question agree, (K, K) in [0, 1]. NaN where nothing can be told.

    - Tool calls agree (1) when names and arguments are equal. A tool call and a text disagree (0).
    - Two final answers agree when they are equal: numbers as numbers (0.5 is 1/2 and 50%), all else as text.
    - Two proses agree by the cosine similarity of the encoder, mapped linearly from [0.3, 0.9] to [0, 1]. That tells
      the topic, and no contradiction. Without an encoder only the same words agree, and others tell nothing.
    - A final answer and a prose tell nothing, nor does an answer without text.

    The matrix is symmetric, with 1 on its diagonal.
    """
    found = np.full((len(answers), len(answers)), np.nan)
    np.fill_diagonal(found, 1.0)
    similarity = _similarities(answers, encoder)
    for row, one in enumerate(answers):
        for column in range(row):
            value = _pair(one, answers[column], float(similarity[row, column]))
            found[row, column] = found[column, row] = value
    return found


def same_final(one: str, other: str) -> bool:
    """Tell whether two canonical final answers are equal. Numbers compare as numbers."""
    if one == other:
        return True
    left, right = sole_number(one), sole_number(other)
    if left is not None and right is not None:
        return same_number(left, right)
    return left is None and right is None and normalise(one) == normalise(other)


def read_tool_calls(completion: Completion) -> tuple[tuple[str, Any], ...]:
    """Return (name, arguments) of each tool call. Arguments that are JSON are parsed, others stay a text."""
    calls = completion.message.get("tool_calls") or ()
    return tuple(_read_tool_call(call) for call in calls if isinstance(call, Mapping))


def _read_tool_call(call: Mapping[str, Any]) -> tuple[str, Any]:
    function = call.get("function")
    named = function if isinstance(function, Mapping) else {}
    arguments = named.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments or "{}")
    return str(named.get("name")), arguments


def _sorted_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, sort_keys=True, default=str)


def _pair(one: SeenAnswer, other: SeenAnswer, similarity: float) -> float:
    if one.tool_calls or other.tool_calls:
        known = all(each.tool_calls or each.final is not None or each.text.strip() for each in (one, other))
        return float(one.tool_calls == other.tool_calls) if known else np.nan
    if one.final is not None and other.final is not None:
        return float(same_final(one.final, other.final))
    if one.final is not None or other.final is not None:
        return np.nan
    if one.text.strip() and normalise(one.text) == normalise(other.text):
        return 1.0
    return similarity


def _similarities(answers: Sequence[SeenAnswer], encoder: Encoder | None) -> FloatArray:
    """Return the mapped cosine similarity (K, K) of the proses, NaN for all other answers."""
    found = np.full((len(answers), len(answers)), np.nan)
    prose = [
        place for place, each in enumerate(answers) if each.final is None and not each.tool_calls and each.text.strip()
    ]
    if encoder is None or len(prose) < 2:
        return found
    vectors = encoder.encode([answers[place].text for place in prose]).astype(np.float64)
    mapped = (vectors @ vectors.T - UNRELATED_COSINE) / (SAME_COSINE - UNRELATED_COSINE)
    found[np.ix_(prose, prose)] = np.clip(mapped, 0.0, 1.0)
    return found
