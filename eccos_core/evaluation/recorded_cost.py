"""Compute what recorded answers cost: the recorded cost, else recorded tokens times prices.

A recorded `cost_usd` is charged as it is. A model without a price must have one for some training questions. Their mean
is its cost where none is recorded, and its forecast for a router that does not forecast cost. The predictors of eccos
forecast it where no output tokens are recorded. `notes` names a model whose recorded cost is far from its tokens times
its price. The rules for the tokens of one recorded answer:

1. Missing input tokens become the mean of the other models' input tokens for the same question. If no model has any,
   the question's tokens are counted (cl100k).
2. Missing output tokens become the mean of the same model's output tokens over the training rows.
3. A model without any recorded output tokens pays for its input only, in its forecasts too. `notes` names such models.
   Compare their costs with each other only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.io.prices import describe_contradicting_costs
from eccos_core.io.tokens import count_text_tokens


@dataclass(frozen=True, slots=True, eq=False)
class PriceTable:
    """Prices of the M models of an outcome table, in its order.

    usd_per_input_token (M,), usd_per_output_token (M,). typical_output_tokens (M,): mean over the training rows, 0 for
    a model without any. output_known (M,): whether a model has any. typical_cost_usd (M,): mean recorded cost over the
    training rows, for a model without a price, else NaN. `notes`: what was assumed, for the report.
    """

    models: tuple[str, ...]
    usd_per_input_token: FloatArray
    usd_per_output_token: FloatArray
    typical_output_tokens: FloatArray
    output_known: BoolArray
    typical_cost_usd: FloatArray
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, prices: Mapping[str, tuple[float, float]], train: OutcomeTable) -> PriceTable:
        """Build a table from (USD per input token, USD per output token) per model.

        Raises `InputError` for a model with neither a price nor a recorded cost.
        """
        typical_cost = _typical_cost(train)
        missing = [m for m, cost in zip(train.models, typical_cost, strict=True) if m not in prices and np.isnan(cost)]
        if missing:
            listed = ", ".join(prices) or "none"
            raise InputError(
                f"no price for {', '.join(missing)}. There are prices for: {listed}. Add the missing ones to the "
                "prices file, or record cost_usd with the outcomes."
            )
        priced = np.array([model in prices for model in train.models], dtype=np.bool_)
        per_token = np.array([prices.get(model, (0.0, 0.0)) for model in train.models], dtype=np.float64)
        known = ~np.isnan(train.output_tokens)
        counts = known.sum(axis=0)
        typical = np.where(known, train.output_tokens, 0.0).sum(axis=0) / np.maximum(counts, 1)
        return cls(
            models=train.models,
            usd_per_input_token=per_token[:, 0],
            usd_per_output_token=per_token[:, 1],
            typical_output_tokens=typical,
            output_known=counts > 0,
            typical_cost_usd=np.where(priced, np.nan, typical_cost),
            notes=(*_missing_token_notes(train.models, known, priced), *describe_contradicting_costs(train, prices)),
        )

    def cost_usd(self, input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
        """Compute the USD (R, M) of calls with these tokens (R, M).

        Output counts only for models with recorded output tokens. A model without a price costs its recorded mean.
        """
        charged = np.where(self.output_known, output_tokens, 0.0)
        by_tokens = input_tokens * self.usd_per_input_token + charged * self.usd_per_output_token
        return np.where(np.isnan(self.typical_cost_usd), by_tokens, self.typical_cost_usd)

    def recorded_cost_usd(self, table: OutcomeTable) -> FloatArray:
        """Compute the USD (R, M) of each recorded answer. What is missing follows the rules of this module."""
        output = np.where(np.isnan(table.output_tokens), self.typical_output_tokens, table.output_tokens)
        by_tokens = self.cost_usd(filled_input_tokens(table), output)
        return by_tokens if table.cost_usd is None else np.where(np.isnan(table.cost_usd), by_tokens, table.cost_usd)


def filled_input_tokens(table: OutcomeTable) -> FloatArray:
    """Return the input tokens (R, M) without gaps. A router knows the question's length before it calls a model."""
    known = ~np.isnan(table.input_tokens)
    sums = np.where(known, table.input_tokens, 0.0).sum(axis=1)
    counts = known.sum(axis=1)
    rows = sums / np.maximum(counts, 1)
    for row in np.flatnonzero(counts == 0):
        rows[row] = count_text_tokens(table.queries[row])
    return np.where(known, table.input_tokens, rows[:, None])


def _typical_cost(table: OutcomeTable) -> FloatArray:
    """Return the mean recorded cost (M,) of each model, NaN for a model without any."""
    if table.cost_usd is None:
        return np.full(len(table.models), np.nan)
    known = ~np.isnan(table.cost_usd)
    counts = known.sum(axis=0)
    return np.where(counts > 0, np.where(known, table.cost_usd, 0.0).sum(axis=0) / np.maximum(counts, 1), np.nan)


def _missing_token_notes(models: Sequence[str], known: BoolArray, priced: BoolArray) -> tuple[str, ...]:
    without = [models[int(column)] for column in np.flatnonzero(priced & ~known.any(axis=0))]
    notes = []
    if not known.any() and priced.all():
        notes.append("No output tokens are recorded. Forecasts and costs are for the input alone.")
    elif without:
        notes.append(f"No output tokens are recorded for {', '.join(without)}: they pay for their input alone.")
    if not priced.all():
        unpriced = [models[int(column)] for column in np.flatnonzero(~priced)]
        notes.append(f"No price for {', '.join(unpriced)}: they pay their recorded cost.")
    return tuple(notes)
