"""Read questions from the decision log: what your users really asked."""

from __future__ import annotations

import sys

from eccos_core.collecting.questions import Question
from eccos_core.decision_log import BaseDecisionLog
from eccos_core.errors import InputError
from eccos_core.grading import GraderSpec


def questions_from_log(log: BaseDecisionLog, grader: GraderSpec | None) -> list[Question]:
    """Return each distinct text of the log as a question, the newest first.

    A log keeps no right answers, so the grader must do without one: a judge, or your own function. Raises `InputError`
    for a log without texts or without decisions, and without a grader.
    """
    entries = log.entries(last=sys.maxsize)
    if not entries:
        raise InputError(
            f"{log.place}: the decision log holds no decision yet. Route some requests, or give --questions."
        )
    texts = {entry.text_key: entry.text for entry in reversed(entries) if entry.text and entry.text.strip()}
    if not texts:
        raise InputError(
            f"{log.place}: the decision log holds {len(entries)} decisions and none of their texts. It keeps texts "
            "only from when you set eccos.decision_log.log_prompts: true. Or give --questions."
        )
    if grader is None:
        raise InputError(
            f"{log.place}: logged questions have no right answer to compare with. Name a judge in eccos.labels.judge, "
            "or give --grader package.module:function."
        )
    return [
        Question(
            id=key,
            messages=({"role": "user", "content": text},),
            query=text,
            reference=None,
            grader=grader,
            extras={"source": "decision_log"},
        )
        for key, text in reversed(texts.items())
    ]
