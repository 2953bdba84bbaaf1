"""Estimate what a collection will cost, without a call. Input tokens are counted, output tokens are assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from eccos_core.collecting.budget import max_answer_tokens, max_call_usd
from eccos_core.collecting.collect import CollectOptions, select_models
from eccos_core.collecting.graders import Graders
from eccos_core.collecting.journal import read_journal
from eccos_core.collecting.outcomes_file import OutcomesFile
from eccos_core.collecting.progress import CollectionProgress, journal_path
from eccos_core.collecting.questions import Question
from eccos_core.domain import Model, Request
from eccos_core.errors import InputError
from eccos_core.grading import JudgeGrader
from eccos_core.io.tokens import count_tokens
from eccos_core.protocols import Backend

ASSUMED_OUTPUT_TOKENS = 300
VERDICT_TOKENS = 60

Basis: TypeAlias = Literal["observed", "assumed", "limit"]
"""Where a number of output tokens comes from: this model's recorded answers, the assumed mean, or max_tokens."""


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """The estimate for one model.

    `input_tokens`: of all calls together, counted with cl100k_base. `output_tokens_each`: the mean per answer, from the
    given basis. `usd`: expected cost. `usd_at_most`: upper bound, None if the length of an answer has no limit.
    """

    model: str
    calls: int
    judge_calls: int
    input_tokens: int
    output_tokens_each: float
    basis: Basis
    usd: float
    usd_at_most: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate for all calls still to be made. `spent_usd`: what this outcomes file has cost so far."""

    questions: int
    already_recorded: int
    models: tuple[ModelEstimate, ...]
    spent_usd: float

    @property
    def usd(self) -> float:
        """The expected cost of all calls still to be made."""
        return sum(model.usd for model in self.models)

    @property
    def usd_at_most(self) -> float | None:
        """The most that all these calls can cost, None if a model has no bound."""
        bounds = [model.usd_at_most for model in self.models]
        return None if None in bounds else sum(bound for bound in bounds if bound is not None)


def estimate(
    questions: Sequence[Question],
    models: Sequence[Model],
    backend: Backend,
    out: Path,
    options: CollectOptions,
    *,
    assumed_output_tokens: int | None = None,
    source: str = "questions",
) -> Estimate:
    """Estimate the calls that `collect` would still make with the same arguments. Calls nothing and writes nothing.

    An answer has `assumed_output_tokens`, else the mean of the model's recorded answers, else 300 tokens, and never
    more than max_tokens. A judge's verdict has 60.
    """
    names = select_models(models, options.models)
    graders = Graders(questions, backend, [model.name for model in models], source, options.reward)
    outcomes = OutcomesFile(out, questions)
    progress = CollectionProgress(
        questions,
        names,
        outcomes,
        read_journal(journal_path(out)),
        parameters=options.parameters,
        retry_failed=options.retry_failed,
        keep_answers=options.keep_answers,
    )
    sums = {model.name: _CostTotal(model) for model in models}
    means = {} if assumed_output_tokens is not None else progress.mean_output_tokens()
    lengths = {name: _length(sums[name].model, options.parameters, means, assumed_output_tokens) for name in sums}
    for question in questions:
        missing = progress.missing(question)
        if not missing:
            continue
        tokens = count_tokens(question.messages)
        request = question.request(options.parameters)
        judge = graders.select(question)
        for name in missing:
            if progress.answer(question, name) is None:
                sums[name].add(tokens, lengths[name][0], _max_usd_or_none(sums[name].model, request))
            if isinstance(judge, JudgeGrader):
                verdict = judge.request(" word" * round(lengths[name][0]), question.reference, question.query)
                bound = _max_usd_or_none(sums[judge.model].model, verdict)
                sums[judge.model].add_verdict(count_tokens(verdict.messages), bound)
    rows = [sums[name].row(*lengths[name]) for name in sums if sums[name].calls or sums[name].judge_calls]
    already_recorded = sum(len(names) - len(progress.missing(question)) for question in questions)
    return Estimate(len(questions), already_recorded, tuple(rows), progress.spent_usd)


def _length(
    model: Model, parameters: Mapping[str, object], means: Mapping[str, float], assumed: int | None
) -> tuple[float, Basis]:
    limit = max_answer_tokens(model, parameters)
    expected = means.get(model.name, float(ASSUMED_OUTPUT_TOKENS if assumed is None else assumed))
    if limit is not None and limit < expected:
        return float(limit), "limit"
    return expected, "observed" if model.name in means else "assumed"


class _CostTotal:
    """Add up the calls of one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.calls = 0
        self.judge_calls = 0
        self._input_tokens = 0
        self._usd = 0.0
        self._usd_at_most: float | None = 0.0

    def add(self, input_tokens: int, output_tokens: float, usd_at_most: float | None) -> None:
        self.calls += 1
        self._add(input_tokens, output_tokens, usd_at_most)

    def add_verdict(self, input_tokens: int, usd_at_most: float | None) -> None:
        self.judge_calls += 1
        self._add(input_tokens, VERDICT_TOKENS, usd_at_most)

    def _add(self, input_tokens: int, output_tokens: float, usd_at_most: float | None) -> None:
        self._input_tokens += input_tokens
        self._usd += float(self.model.call_usd(input_tokens, output_tokens))
        together = self._usd_at_most
        self._usd_at_most = None if together is None or usd_at_most is None else together + usd_at_most

    def row(self, output_tokens_each: float, basis: Basis) -> ModelEstimate:
        model = self.model
        return ModelEstimate(
            model=model.name,
            calls=self.calls,
            judge_calls=self.judge_calls,
            input_tokens=self._input_tokens,
            output_tokens_each=output_tokens_each,
            basis=basis,
            usd=self._usd,
            usd_at_most=self._usd_at_most,
        )


def _max_usd_or_none(model: Model, request: Request) -> float | None:
    try:
        return max_call_usd(model, request)
    except InputError:
        return None
