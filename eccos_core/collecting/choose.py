"""Spend a small budget where it teaches most: `eccos collect --choose`.

first: every model gets a few of the most typical questions
then, until the budget is spent:
    the model whose next answers are worth most per USD      choose_models.py
    the questions that stand for most others                 choose_questions.py
    ask, grade, write to the journal                         collect.py
    learn from the outcomes, and choose again

A later run with the same file goes on from the outcomes that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from eccos_core.collecting.budget import max_answer_tokens, max_call_usd
from eccos_core.collecting.choose_models import DROP_BELOW, ModelComparison, usual_prices
from eccos_core.collecting.choose_questions import choose_questions, question_points
from eccos_core.collecting.collect import (
    CollectEvent,
    CollectionRun,
    CollectOptions,
    CollectReport,
    open_collection,
    select_models,
)
from eccos_core.collecting.estimate import ASSUMED_OUTPUT_TOKENS
from eccos_core.collecting.progress import CollectionProgress
from eccos_core.collecting.questions import Question
from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray, Model
from eccos_core.errors import InputError
from eccos_core.io.tokens import count_tokens
from eccos_core.protocols import Backend

START = 10  # questions that every model gets first, fewer if they would take more than START_SHARE of the budget
MIN_START = 3
START_SHARE = 0.5
ROUND = 10  # answers between two choices, or half of what the model has
MIN_OUTCOMES = 30  # of a single new model before it can be dropped
FREE_USD = 1e-9  # what a call of a free model counts as, so that its worth per USD is a number

StopReason: TypeAlias = Literal["budget", "not_worth_it", "all_asked", "all_failed"]
ModelState: TypeAlias = Literal["open", "dropped", "failed", "all_asked"]


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """What a model was asked, and why not more.

    `asked`: questions in all runs. `scored`: those with a score. `forecast`: mean quality over all questions of the
    file, None before the first round. `worth`: quality that perfect knowledge of this model would still add to
    routing. `usd_per_call`: as recorded, or as expected.
    """

    model: str
    asked: int
    scored: int
    forecast: float | None
    worth: float | None
    usd_per_call: float
    state: ModelState


@dataclass(frozen=True, slots=True)
class ChooseReport:
    """The result of a chosen collection. `left_usd`: of the budget. `asked`: ids that this run asked, in order."""

    collected: CollectReport
    models: tuple[ChosenModel, ...]
    rounds: int
    stopped: StopReason
    left_usd: float
    asked: tuple[tuple[str, str], ...]


async def collect_chosen(
    questions: Sequence[Question],
    models: Sequence[Model],
    backend: Backend,
    out: Path,
    options: CollectOptions,
    vectors: Float32Array,
    *,
    usd_per_quality: float | None = None,
    observe: Callable[[CollectEvent], None] = lambda event: None,
    source: str = "questions",
) -> ChooseReport:
    """Collect the outcomes that teach most, within `options.budget_usd`. Continues where an earlier run ended.

    vectors (N, D): one for each question. usd_per_quality: what a unit of quality is worth to you, None to consider
    a range of prices. Outcomes of other models in `out` count as known. Raises what `collect` raises, and `InputError`
    without a budget.
    """
    if options.budget_usd is None:
        raise InputError("choosing questions spends a budget, and none is given. Add --budget-usd.")
    if len(vectors) != len(questions):
        raise InputError(f"vectors have shape {vectors.shape}, there are {len(questions)} questions: one row for each")
    names = select_models(models, options.models)
    with open_collection(questions, models, backend, out, options, names, observe=observe, source=source) as opened:
        run = opened.run
        chooser = _Chooser(questions, names, models, opened.progress, options, vectors, usd_per_quality)
        try:
            stopped = await _ask_in_rounds(run, chooser)
        finally:
            opened.outcomes.rewrite(names)  # also where a call raised: what was paid for is in the file
        report = opened.finish()
        return ChooseReport(report, chooser.report(), chooser.rounds, stopped, run.left_usd or 0.0, chooser.asked)


async def _ask_in_rounds(run: CollectionRun, chooser: _Chooser) -> StopReason:
    while True:
        batch = chooser.next_batch(run.left_usd or 0.0)
        if not batch:
            return chooser.stop_reason()
        await run.ask(batch)
        chooser.note(batch)
        if run.budget_reached:
            chooser.learn()
            return "budget"


class _Chooser:
    """Choose the next (question, models) from everything known so far. It calls nothing itself."""

    def __init__(
        self,
        questions: Sequence[Question],
        names: Sequence[str],
        pool: Sequence[Model],
        progress: CollectionProgress,
        options: CollectOptions,
        vectors: Float32Array,
        usd_per_quality: float | None,
    ) -> None:
        self.rounds = 0
        self.asked: tuple[tuple[str, str], ...] = ()
        self._questions, self._names, self._progress = questions, list(names), progress
        others = sorted(progress.models_with_outcomes() - set(names))
        self._columns = [*names, *(model.name for model in pool if model.name in others)]
        self._models = [next(model for model in pool if model.name == name) for name in self._columns]
        self._parameters = options.parameters
        self._price = usd_per_quality
        self._dropped: dict[str, ModelState] = {}
        self._input_tokens = float(np.mean([count_tokens(question.messages) for question in questions]))
        quality, _ = self._state()
        self._points = question_points(vectors, quality[:, len(names) :])
        self._comparison = ModelComparison(len(self._columns), self._points)
        self._worth: FloatArray | None = None

    # ------------------------------------------------------------------------------------------------ what is known

    def _state(self) -> tuple[FloatArray, BoolArray]:
        """Return the scores (N, K), NaN where missing, and where an outcome is there (N, K), a failure included."""
        quality = np.full((len(self._questions), len(self._columns)), np.nan)
        have = np.zeros(quality.shape, dtype=np.bool_)
        for row, question in enumerate(self._questions):
            for column, name in enumerate(self._columns):
                output = self._progress.outcome(question, name)
                if output is not None:
                    have[row, column] = True
                    score = output.get("correct")
                    quality[row, column] = np.nan if score is None else float(score)
        return quality, have

    def _cost_usd(self) -> FloatArray:
        """Return the mean cost (K,) of a call: as recorded, or with the expected length."""
        costs = np.zeros(len(self._models))
        for at, model in enumerate(self._models):
            outputs = [self._progress.outcome(question, model.name) for question in self._questions]
            known = [float(o["cost_usd"]) for o in outputs if o is not None and o.get("cost_usd") is not None]
            limit = max_answer_tokens(model, self._parameters)
            length = ASSUMED_OUTPUT_TOKENS if limit is None else min(limit, ASSUMED_OUTPUT_TOKENS)
            expected = float(model.call_usd(self._input_tokens, length))
            costs[at] = (sum(known) + expected) / (len(known) + 1)
        return costs

    def learn(self) -> None:
        """Learn from all new outcomes, and value the models again."""
        quality, _ = self._state()
        cost = self._cost_usd()
        self._comparison.learn(quality)
        prices = usual_prices(cost) if self._price is None else [self._price]
        values = self._comparison.values(cost, prices, ROUND)
        self._worth = values.perfect
        self._gain_per_usd = values.gain / np.maximum(cost, FREE_USD)

    def note(self, batch: Sequence[tuple[Question, Sequence[str]]]) -> None:
        """Remember what was asked, in order."""
        done = [
            (question.id, name)
            for question, names in batch
            for name in names
            if self._progress.outcome(question, name) is not None
        ]
        self.asked = (*self.asked, *done)

    # ----------------------------------------------------------------------------------------------------- choosing

    def next_batch(self, left_usd: float) -> list[tuple[Question, list[str]]]:
        """Return the questions to ask next, each with its models. Nothing if nothing is worth a call."""
        quality, have = self._state()
        start = self._start(have, left_usd)
        if start:
            self.rounds += 1
            return start
        self.learn()
        assert self._worth is not None
        self._drop(quality, have, self._worth)
        candidates = [at for at, name in enumerate(self._names) if name not in self._dropped]
        candidates.sort(key=lambda at: -self._gain_per_usd[at])
        for at in candidates:
            batch = self._batch(at, quality, have, max(ROUND, int(have[:, at].sum()) // 2), left_usd)
            if batch:
                self.rounds += 1
                return batch
        return []

    def _start(self, have: BoolArray, left_usd: float) -> list[tuple[Question, list[str]]]:
        """Return the first questions: the same ones for every model that has too few outcomes."""
        cost = self._cost_usd()[: len(self._names)]
        counts = have[:, : len(self._names)].sum(axis=0)
        count = START
        if cost.sum() > 0:
            count = int(np.clip(START_SHARE * left_usd / cost.sum(), MIN_START, START))
        count = min(count, len(self._questions))
        few = [at for at in range(len(self._names)) if counts[at] < min(count, MIN_START)]
        if not few:
            return []
        free: BoolArray = np.asarray(~have[:, few].any(axis=1), dtype=np.bool_)
        none = np.zeros(len(have), dtype=np.bool_)
        rows = choose_questions(self._points, none, free, self._answers(have), count)
        return [(self._questions[row], [self._names[at] for at in few]) for row in rows]

    def _batch(
        self, at: int, quality: FloatArray, have: BoolArray, count: int, left_usd: float
    ) -> list[tuple[Question, list[str]]]:
        model, name = self._models[at], self._names[at]
        affordable = np.array(
            [max_call_usd(model, question.request(self._parameters)) <= left_usd for question in self._questions]
        )
        free = ~have[:, at] & affordable
        rows = choose_questions(self._points, have[:, at], free, self._answers(~np.isnan(quality)), count, self.rounds)
        return [(self._questions[row], [name]) for row in rows]

    def _answers(self, have: BoolArray) -> IntArray:
        return np.asarray(have[:, : len(self._names)].sum(axis=1), dtype=np.int64)

    def _drop(self, quality: FloatArray, have: BoolArray, worth: FloatArray) -> None:
        """Decide again which models get no more questions."""
        scored = (~np.isnan(quality)).sum(axis=0)
        alone = len(self._names) == 1
        self._dropped = {}
        for at, name in enumerate(self._names):
            if have[:, at].all():
                self._dropped[name] = "all_asked"
            elif have[:, at].sum() >= MIN_START and not scored[at]:
                self._dropped[name] = "failed"
            elif len(self._columns) > 1 and worth[at] < DROP_BELOW and (not alone or scored[at] >= MIN_OUTCOMES):
                self._dropped[name] = "dropped"

    # ------------------------------------------------------------------------------------------------------- report

    def stop_reason(self) -> StopReason:
        """Say why there is no further batch."""
        states = {self._dropped.get(name, "open") for name in self._names}
        if "open" in states:
            return "budget"
        if states == {"failed"}:
            return "all_failed"
        return "not_worth_it" if "dropped" in states else "all_asked"

    def report(self) -> tuple[ChosenModel, ...]:
        """Report each model that could be asked."""
        quality, have = self._state()
        cost = self._cost_usd()
        forecast = None if self._worth is None else self._comparison.forecast()
        return tuple(
            ChosenModel(
                model=name,
                asked=int(have[:, at].sum()),
                scored=int((~np.isnan(quality[:, at])).sum()),
                forecast=None if forecast is None else float(np.clip(forecast[at], 0.0, 1.0)),
                worth=None if self._worth is None else float(self._worth[at]),
                usd_per_call=float(cost[at]),
                state=self._dropped.get(name, "open"),
            )
            for at, name in enumerate(self._names)
        )
