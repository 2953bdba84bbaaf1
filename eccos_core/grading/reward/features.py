"""What a reward model sees of an answer: vectors of question and answer, and how the answer looks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.grading.refusal import refuses
from eccos_core.io.answers import Answer
from eccos_core.protocols import Encoder

SURFACE = (
    "log characters",
    "log words",
    "log output tokens",
    "output tokens unknown",
    "cut off",
    "filtered",
    "refuses",
    "share of the question's words",
    "share of words from the question",
    "share of distinct words",
    "similarity to the question",
)
_WORD = re.compile(r"\w+")


def answer_features(answers: Sequence[Answer], encoder: Encoder) -> Float32Array:
    """Return (N, 3 D + 11): the vectors of question and answer, their product, and `SURFACE`. A question is read once.

    The name of the model is no part of it.
    """
    row_of = {question: row for row, question in enumerate(dict.fromkeys(each.question for each in answers))}
    question = encoder.encode(list(row_of))[[row_of[each.question] for each in answers]]
    answer = encoder.encode([each.text for each in answers])
    product = question * answer
    surface = np.array([_surface(each) for each in answers], dtype=np.float32).reshape(len(answers), -1)
    return np.concatenate([question, answer, product, surface, product.sum(axis=1, keepdims=True)], axis=1)


def _surface(answer: Answer) -> tuple[float, ...]:
    text = answer.text.lower().replace("\u2019", "'")
    words, asked = _WORD.findall(text), set(_WORD.findall(answer.question.lower()))
    distinct = set(words)
    shared = len(distinct & asked)
    return (
        math.log1p(len(text)),
        math.log1p(len(words)),
        math.log1p(answer.output_tokens or 0),
        float(answer.output_tokens is None),
        float(answer.finish_reason == "length"),
        float(answer.finish_reason == "content_filter"),
        float(refuses(text)),
        shared / max(len(asked), 1),
        shared / max(len(distinct), 1),
        len(distinct) / max(len(words), 1),
    )
