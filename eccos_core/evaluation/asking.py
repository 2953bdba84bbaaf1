"""Recorded answers of test questions, for routers that look at them: revealed when asked for, and charged.

Whether an answer is right is never revealed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, OutcomeTable, TextArray
from eccos_core.errors import InputError
from eccos_core.evaluation.metrics import PlanChoices
from eccos_core.plans import RevealedAnswers


@dataclass(frozen=True, slots=True, eq=False)
class RecordedAnswers:
    """The answers of R test questions and M models. Routers get them from a `ledger` alone.

    texts (R, M), features (R, M) by name, output_tokens and cost_usd (R, M). observed (R, M): where there is an answer.
    """

    _texts: TextArray
    _features: Mapping[str, FloatArray]
    _output_tokens: FloatArray
    _cost_usd: FloatArray
    _observed: BoolArray

    @classmethod
    def of(cls, table: OutcomeTable, cost_usd: FloatArray) -> RecordedAnswers:
        """Take the answers of a table, with what each call cost (R, M)."""
        shape = table.quality.shape
        texts = np.full(shape, None, dtype=object) if table.answers is None else table.answers
        return cls(texts, table.features, table.output_tokens, cost_usd, ~np.isnan(table.quality))

    def rows(self, start: int, stop: int) -> RecordedAnswers:
        """Return the questions from `start` up to `stop`."""
        part = slice(start, stop)
        features = {name: values[part] for name, values in self._features.items()}
        return RecordedAnswers(
            self._texts[part], features, self._output_tokens[part], self._cost_usd[part], self._observed[part]
        )

    def digest(self) -> str:
        """Return a digest of all answers, which tells nothing of them."""
        return digest_answers(self._texts, {**self._features, "output_tokens": self._output_tokens})

    def ledger(self, settings: int) -> AnswerLedger:
        """Open a ledger for a router with this many settings."""
        return AnswerLedger(self, np.zeros((settings, *self._texts.shape), dtype=np.bool_))


@dataclass(frozen=True, slots=True, eq=False)
class AnswerLedger:
    """Reveals answers, and keeps the bill of each setting and question. One per router.

    Each answer is charged once per setting and question, however often it is asked for.
    """

    _answers: RecordedAnswers
    _asked: BoolArray = field(repr=False)  # (S, R, M)

    def ask(self, setting: IntArray, row: IntArray, model: IntArray) -> RevealedAnswers:
        """Return the answers of `model` (K,) to the questions `row` (K,), and charge them to `setting` (K,).

        Raises `InputError` for an answer that was not recorded.
        """
        answers = self._answers
        if not answers._observed[row, model].all():
            raise InputError("a router asked a model whose answer to that question is not recorded")
        self._asked[setting, row, model] = True
        features = {name: values[row, model] for name, values in answers._features.items()}
        return RevealedAnswers(answers._texts[row, model], features, answers._output_tokens[row, model])

    def accept(self, accepted: IntArray) -> PlanChoices:
        """Close the bill: accepted (S, R) is the model whose answer each plan takes.

        Raises `InputError` for an answer that was not asked for.
        """
        if not np.take_along_axis(self._asked, accepted[..., None], axis=2).all():
            raise InputError("a router accepted an answer that it did not ask for")
        cost = np.where(self._answers._observed, self._answers._cost_usd, 0.0)
        paid = np.einsum("srm,rm->sr", self._asked, cost)
        return PlanChoices(accepted.astype(np.int16), paid, self._asked.sum(axis=2, dtype=np.int16))


def digest_answers(texts: TextArray | None, features: Mapping[str, FloatArray]) -> str:
    """Return a digest (64 hexadecimal digits) of texts and features."""
    total = hashlib.sha256(json.dumps(None if texts is None else texts.tolist()).encode())
    for name in sorted(features):
        total.update(name.encode() + np.ascontiguousarray(features[name]).tobytes())
    return total.hexdigest()
