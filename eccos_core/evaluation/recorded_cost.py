"""Compute what recorded answers cost: recorded tokens times prices, with rules for missing tokens.

The rules for the tokens of one recorded answer:

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
from eccos_core.io.tokens import count_text_tokens


@dataclass(frozen=True, slots=True, eq=False)
class PriceTable:
    """Prices of the M models of an outcome table, in its order.

    usd_per_input_token (M,), usd_per_output_token (M,). typical_output_tokens (M,): mean over the training rows, 0 for
    a model without any. output_known (M,): whether a model has any. `notes`: what was assumed, for the report.
    """

    models: tuple[str, ...]
    usd_per_input_token: FloatArray
    usd_per_output_token: FloatArray
    typical_output_tokens: FloatArray
    output_known: BoolArray
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, prices: Mapping[str, tuple[float, float]], train: OutcomeTable) -> PriceTable:
        """Build a table from (USD per input token, USD per output token) per model.

        Raises `InputError` for a missing price.
        """
        missing = [model for model in train.models if model not in prices]
        if missing:
            listed = ", ".join(prices) or "none"
            raise InputError(
                f"no price for {', '.join(missing)}. There are prices for: {listed}. Add the missing ones to the "
                "prices file."
            )
        known = ~np.isnan(train.output_tokens)
        counts = known.sum(axis=0)
        typical = np.where(known, train.output_tokens, 0.0).sum(axis=0) / np.maximum(counts, 1)
        return cls(
            models=train.models,
            usd_per_input_token=np.array([prices[model][0] for model in train.models], dtype=np.float64),
            usd_per_output_token=np.array([prices[model][1] for model in train.models], dtype=np.float64),
            typical_output_tokens=typical,
            output_known=counts > 0,
            notes=_missing_token_notes(train.models, known),
        )

    def cost_usd(self, input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
        """Compute the USD (R, M) of calls with these tokens (R, M).

        Output counts only for models with recorded output tokens.
        """
        charged = np.where(self.output_known, output_tokens, 0.0)
        return np.asarray(input_tokens * self.usd_per_input_token + charged * self.usd_per_output_token)

    def recorded_cost_usd(self, table: OutcomeTable) -> FloatArray:
        """Compute the USD (R, M) of each recorded answer. Missing tokens follow the rules of this module."""
        output = np.where(np.isnan(table.output_tokens), self.typical_output_tokens, table.output_tokens)
        return self.cost_usd(filled_input_tokens(table), output)


def filled_input_tokens(table: OutcomeTable) -> FloatArray:
    """Return the input tokens (R, M) without gaps. A router knows the question's length before it calls a model."""
    known = ~np.isnan(table.input_tokens)
    sums = np.where(known, table.input_tokens, 0.0).sum(axis=1)
    counts = known.sum(axis=1)
    rows = sums / np.maximum(counts, 1)
    for row in np.flatnonzero(counts == 0):
        rows[row] = count_text_tokens(table.queries[row])
    return np.where(known, table.input_tokens, rows[:, None])


def _missing_token_notes(models: Sequence[str], known: BoolArray) -> tuple[str, ...]:
    counts = known.sum(axis=0)
    if not counts.any():
        return ("No output tokens are recorded. Forecasts and costs are for the input alone.",)
    without = [model for model, count in zip(models, counts, strict=True) if not count]
    if not without:
        return ()
    return (f"No output tokens are recorded for {', '.join(without)}: they pay for their input alone.",)
