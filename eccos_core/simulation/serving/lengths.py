"""How long answers become: as it is, as a forecast learnt from past requests believes, or at most."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eccos_core.domain import IntArray
from eccos_core.errors import InputError
from eccos_core.simulation.serving.workload import ServingWorkload

_ROWS_PER_BIN = 200
_BEYOND = 1.25  # how much longer an answer becomes that is longer than all that were seen


class AnswerLengths(Protocol):
    """Says how many tokens a request generates in all, as far as the scheduler can know."""

    def total(self, request: int, generated: int) -> float:
        """Return the tokens of the whole answer, more than the `generated` ones that are there."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TrueLengths:
    """Knows every answer in advance: the oracle that a forecast is measured by."""

    output_tokens: IntArray

    def total(self, request: int, generated: int) -> float:
        """Return the real length."""
        return max(float(self.output_tokens[request]), generated + 1.0)


class LengthForecast:
    """The length of answers by the length of their prompts, learnt from past requests.

    Prompts are grouped by length, 200 or more a group. A group keeps its past lengths. The forecast is their mean, over
    those that are longer than what is generated already. It so becomes longer with the answer.
    """

    def __init__(self, prompt_tokens: IntArray, output_tokens: IntArray, rows_per_bin: int = _ROWS_PER_BIN) -> None:
        if len(prompt_tokens) != len(output_tokens) or not len(prompt_tokens):
            raise InputError(
                f"a length forecast learns from {len(prompt_tokens)} prompts and {len(output_tokens)} answers: it "
                "needs as many of one as of the other, and at least one"
            )
        bins = max(1, len(prompt_tokens) // rows_per_bin)
        self._edges = np.unique(np.quantile(prompt_tokens, np.linspace(0, 1, bins + 1)[1:-1])).tolist()
        group = np.searchsorted(self._edges, prompt_tokens, side="right")
        self._lengths, self._sums = [], []
        for number in range(len(self._edges) + 1):
            lengths = np.sort(output_tokens[group == number])
            if not len(lengths):
                lengths = np.sort(output_tokens)
            self._lengths.append(lengths.tolist())
            self._sums.append(np.append(np.cumsum(lengths[::-1])[::-1], 0).tolist())

    def mean(self, prompt_tokens: int, generated: int = 0) -> float:
        """Return the tokens of the whole answer, given that more than `generated` come."""
        group = bisect_right(self._edges, prompt_tokens)
        lengths = self._lengths[group]
        first = bisect_right(lengths, generated)
        if first == len(lengths):
            return _BEYOND * generated + 1.0
        return float(self._sums[group][first] / (len(lengths) - first))


@dataclass(frozen=True, slots=True, eq=False)
class LearnedLengths:
    """What a forecast believes of the requests of a workload."""

    forecast: LengthForecast
    workload: ServingWorkload

    def total(self, request: int, generated: int) -> float:
        """Return the forecast length, at most the request's limit."""
        believed = self.forecast.mean(int(self.workload.prompt_tokens[request]), generated)
        return max(min(believed, float(self.workload.limit_tokens[request])), generated + 1.0)


def split_to_learn(workload: ServingWorkload, share: float) -> tuple[LearnedLengths, ServingWorkload]:
    """Learn a forecast from the first `share` of a workload. Return what it believes of the rest, and the rest."""
    learnt = min(max(1, int(share * len(workload))), len(workload) - 1)
    rest = workload.rows(slice(learnt, None))
    return LearnedLengths(LengthForecast(workload.prompt_tokens[:learnt], workload.output_tokens[:learnt]), rest), rest
