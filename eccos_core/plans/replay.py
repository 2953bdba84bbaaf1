"""Run plans over recorded answers: at many prices of quality at once, seeing only the answers that were asked for.

Axes: S prices, R requests, M models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray, TextArray
from eccos_core.plans.rule import PlanRule
from eccos_core.plans.state import PlanState, length_ratio
from eccos_core.plans.texts import agree, code_answers


@dataclass(frozen=True, slots=True, eq=False)
class RevealedAnswers:
    """Answers that were asked for, one per cell: texts (K,), None where unknown, and features (K,) by name.

    output_tokens (K,): NaN where unknown.
    """

    texts: TextArray
    features: Mapping[str, FloatArray]
    output_tokens: FloatArray

    def rows(self, index: IntArray) -> RevealedAnswers:
        """The chosen answers."""
        features = {name: values[index] for name, values in self.features.items()}
        return RevealedAnswers(self.texts[index], features, self.output_tokens[index])


class AnswerSource(Protocol):
    """Gives the answers of recorded questions, and charges them."""

    def ask(self, setting: IntArray, row: IntArray, model: IntArray) -> RevealedAnswers:
        """Return the answers of `model` (K,) to the questions `row` (K,), asked for in the runs `setting` (K,)."""
        ...


def run_plans(
    rule: PlanRule,
    state: PlanState,
    prices: FloatArray,
    open_models: BoolArray,
    source: AnswerSource,
    trusts: FloatArray | None = None,
) -> IntArray:
    """Run the plan of every request at every setting, and return whose answer it accepts, (S, R) columns.

    prices (S,): USD per unit of quality. open_models (R, M): who has an answer. trusts (S,): instead of the rule's own.
    """
    settings, rows = len(prices), len(state)
    models = len(state.models)
    trust = np.full(settings, rule.trust) if trusts is None else trusts
    accepted = np.empty(settings * rows, dtype=np.int64)
    model = choose_first_models(rule, state, prices, open_models, trust).ravel()
    setting, row = (index.ravel() for index in np.indices((settings, rows)))
    cell = np.arange(len(row))  # plans that go on, in the order of their setting
    group = row  # plans with the same calls so far share a state
    codes = np.empty((rows, 0), dtype=np.int64)
    numbers: dict[str, int] = {}
    while len(cell):
        told = source.ask(setting[cell], row[cell], model)
        _, one, shared = np.unique(group * models + model, return_index=True, return_inverse=True)
        before = group[one]
        new = code_answers(told.texts[one], numbers)
        state = _with_answers(state.rows(before), codes[before], model[one], told.rows(one), new)
        codes = np.column_stack([codes[before], new])
        may_ask = open_models[row[cell][one]]
        group = shared
        choice, ahead, may_ask = rule.look_ahead(state, may_ask)
        accepted[cell] = choice[group]
        if ahead is None:
            break
        starts = np.searchsorted(setting[cell], np.arange(settings + 1))
        following = np.full(len(cell), -1)
        for at in range(settings):
            mine = slice(starts[at], starts[at + 1])
            which = group[mine]
            if not len(which):
                continue
            gains = ahead.rows(which).gains(
                np.full(len(which), prices[at]), state.cost_usd[which], may_ask[which], float(trust[at])
            )
            best = gains.argmax(axis=1)
            following[mine] = np.where(gains[np.arange(len(which)), best] > 0, best, -1)
        goes_on = following >= 0
        cell, group, model = cell[goes_on], group[goes_on], following[goes_on]
    return accepted.reshape(settings, rows)


def choose_first_models(
    rule: PlanRule, state: PlanState, prices: FloatArray, open_models: BoolArray, trusts: FloatArray
) -> IntArray:
    """Return the model (S, R) with which each plan starts: it minimises expected cost - price * expected quality.

    On equal scores the higher quality wins, then the model that is better or cheaper on average. Without trust in the
    verifier that is the choice of a router that calls one model.
    """
    columns = np.lexsort((state.cost_usd.mean(axis=0), -state.quality.mean(axis=0)))
    plans = rule.first_plans(state)
    chosen = np.empty((len(prices), len(state)), dtype=np.int64)
    for place, (price, trust) in enumerate(zip(prices, trusts, strict=True)):
        values = replace(plans, trust=float(trust)).values(float(price), open_models)
        score = values.cost_usd - price * values.quality
        score = np.where(open_models, score, np.inf)[:, columns]
        tied = score == score.min(axis=1, keepdims=True)
        chosen[place] = columns[np.where(tied, values.quality[:, columns], -np.inf).argmax(axis=1)]
    return chosen


def _with_answers(
    state: PlanState, codes: IntArray, model: IntArray, told: RevealedAnswers, new: IntArray
) -> PlanState:
    """Return the states with one more answer each. codes (U, n) of the answers so far, new (U,) of the new ones."""
    forecast = state.output_tokens[np.arange(len(model)), model]
    features = {**told.features, "length_ratio": length_ratio(told.output_tokens, forecast)}
    return state.after_each(model, features, agree(codes, new[:, None]), new >= 0)
