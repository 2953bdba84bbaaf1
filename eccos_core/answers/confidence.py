"""Measure what an answer tells about itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eccos_core.answers.validity import is_valid
from eccos_core.domain import AnswerConfidence, Completion, Request
from eccos_core.grading.refusal import refuses

LEAST_LOGPROB = -100.0
"""Providers write -9999 or -inf for a probability of 0. It counts as this."""


def measure_answer(
    request: Request,
    completion: Completion,
    expected_output_tokens: float | None = None,
    *,
    agreement: float | None = None,
    reward: float | None = None,
    judge: float | None = None,
) -> AnswerConfidence:
    """Measure an answer: its log-probabilities, length, end, refusal and validity. It calls nobody.

    `expected_output_tokens` is the forecast that the length is set against. `agreement`, `reward` and `judge` are
    passed on. An answer without text and without tool calls counts as a refusal.
    """
    logprobs = token_logprobs(completion.logprobs)
    reason = completion.finish_reason
    valid = is_valid(request, completion)
    ratio = None
    if expected_output_tokens is not None and expected_output_tokens > 0:
        ratio = completion.output_tokens / expected_output_tokens
    return AnswerConfidence(
        mean_logprob=math.fsum(logprobs) / len(logprobs) if logprobs else None,
        least_logprob=min(logprobs, default=None),
        length_ratio=ratio,
        cut_off=None if reason is None else float(reason == "length"),
        filtered=None if reason is None else float(reason == "content_filter"),
        refuses=float(_refuses(completion)),
        valid=None if valid is None else float(valid),
        agreement=agreement,
        reward=reward,
        judge=judge,
    )


def token_logprobs(logprobs: Mapping[str, Any] | None) -> list[float]:
    """Return the log-probability of each token of an answer, each in [-100, 0]. Empty where there are none.

    `logprobs` is OpenAI's object, with `content` (chat) or `token_logprobs` (text completions).
    """
    if not isinstance(logprobs, Mapping):
        return []
    content = logprobs.get("content")
    if isinstance(content, list | tuple):
        given = [entry.get("logprob") for entry in content if isinstance(entry, Mapping)]
    else:
        given = list(logprobs.get("token_logprobs") or ())
    numbers = [float(value) for value in given if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return [min(0.0, max(LEAST_LOGPROB, value)) for value in numbers if not math.isnan(value)]


def _refuses(completion: Completion) -> bool:
    message = completion.message
    if message.get("refusal"):
        return True
    if message.get("tool_calls"):
        return False
    return not completion.text.strip() or refuses(completion.text)
