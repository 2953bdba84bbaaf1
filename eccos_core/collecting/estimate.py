"""What a collection would cost, without a call: input tokens counted, output tokens assumed and said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from eccos_core.collecting.budget import most_expensive_usd, most_output_tokens
from eccos_core.collecting.collect import CollectOptions, chosen_models
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
TOKENS_OF_A_VERDICT = 60

Basis: TypeAlias = Literal["observed", "assumed", "limit"]
"""Where a number of output tokens comes from: this model's answers on file, the assumed mean, or max_tokens."""


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """One model. `input_tokens` of all calls together, counted with cl100k_base; `output_tokens_each`: mean, assumed on
    the given basis. `usd`: expected; `usd_at_most`: None where nothing bounds an answer's length."""

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
    """What is still to be asked. `spent_usd`: what this outcomes file has cost so far."""

    questions: int
    on_file: int
    models: tuple[ModelEstimate, ...]
    spent_usd: float

    @property
    def usd(self) -> float:
        """Expected, for all calls still to be made."""
        return sum(model.usd for model in self.models)

    @property
    def usd_at_most(self) -> float | None:
        """An upper bound, None where a model has none."""
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
    """What `collect` with the same arguments would still ask, and what that costs. Calls nothing and writes nothing.

    Output tokens per answer: `assumed_output_tokens` where given; else the mean of the model's answers on file; else
    300; never more than max_tokens. A judge's verdict is taken to be 60 tokens long.
    """
    asked = chosen_models(models, options.models)
    graders = Graders(questions, backend, [model.name for model in models], source)
    outcomes = OutcomesFile(out, questions)
    progress = CollectionProgress(
        questions,
        asked,
        outcomes,
        read_journal(journal_path(out)),
        parameters=options.parameters,
        retry_failed=options.retry_failed,
        keep_answers=options.keep_answers,
    )
    sums = {model.name: _Sum(model) for model in models}
    means = {} if assumed_output_tokens is not None else progress.mean_output_tokens()
    lengths = {name: _length(sums[name].model, options.parameters, means, assumed_output_tokens) for name in sums}
    for question in questions:
        missing = progress.missing(question)
        if not missing:
            continue
        tokens = count_tokens(question.messages)
        request = question.request(options.parameters)
        judge = graders.of(question)
        for name in missing:
            if progress.answer(question, name) is None:
                sums[name].add(tokens, lengths[name][0], _at_most(sums[name].model, request))
            if isinstance(judge, JudgeGrader):
                verdict = judge.request(" word" * round(lengths[name][0]), question.reference, question.query)
                bound = _at_most(sums[judge.model].model, verdict)
                sums[judge.model].add_verdict(count_tokens(verdict.messages), bound)
    rows = [sums[name].row(*lengths[name]) for name in sums if sums[name].calls or sums[name].judge_calls]
    on_file = sum(len(asked) - len(progress.missing(question)) for question in questions)
    return Estimate(len(questions), on_file, tuple(rows), progress.spent_usd)


def _length(
    model: Model, parameters: Mapping[str, object], means: Mapping[str, float], assumed: int | None
) -> tuple[float, Basis]:
    limit = most_output_tokens(model, parameters)
    expected = means.get(model.name, float(ASSUMED_OUTPUT_TOKENS if assumed is None else assumed))
    if limit is not None and limit < expected:
        return float(limit), "limit"
    return expected, "observed" if model.name in means else "assumed"


class _Sum:
    """What one model's calls add up to."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.calls = 0
        self.judge_calls = 0
        self._input_tokens = 0
        self._output_tokens = 0.0
        self._usd_at_most: float | None = 0.0

    def add(self, input_tokens: int, output_tokens: float, usd_at_most: float | None) -> None:
        self.calls += 1
        self._add(input_tokens, output_tokens, usd_at_most)

    def add_verdict(self, input_tokens: int, usd_at_most: float | None) -> None:
        self.judge_calls += 1
        self._add(input_tokens, TOKENS_OF_A_VERDICT, usd_at_most)

    def _add(self, input_tokens: int, output_tokens: float, usd_at_most: float | None) -> None:
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        together = self._usd_at_most
        self._usd_at_most = None if together is None or usd_at_most is None else together + usd_at_most

    def row(self, output_tokens_each: float, basis: Basis) -> ModelEstimate:
        model = self.model
        usd = self._input_tokens * model.usd_per_input_token + self._output_tokens * model.usd_per_output_token
        return ModelEstimate(
            model=model.name,
            calls=self.calls,
            judge_calls=self.judge_calls,
            input_tokens=self._input_tokens,
            output_tokens_each=output_tokens_each,
            basis=basis,
            usd=usd,
            usd_at_most=self._usd_at_most,
        )


def _at_most(model: Model, request: Request) -> float | None:
    try:
        return most_expensive_usd(model, request)
    except InputError:
        return None
