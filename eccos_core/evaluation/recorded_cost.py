"""What was really paid: recorded tokens x prices, and what is done where tokens are missing.

The rules, in order, for the tokens of one recorded answer:

1. Input tokens that are missing are those of the other models for the same question (their mean); where no model has
   any, our own count of the question's tokens (cl100k).
2. Output tokens that are missing are the mean of the same model's known ones, over the training rows.
3. A model without a single known output token is charged for its input alone, and so are its forecasts: cost is what
   is known, and `notes` says for which models. Costs are then comparable only among such models.
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
    """Prices of the M models of a table, in its order.

    usd_per_input_token (M,), usd_per_output_token (M,); typical_output_tokens (M,): mean of the known training rows,
    0 where a model has none; output_known (M,): whether it has any. `notes`: what was assumed, for the report.
    """

    models: tuple[str, ...]
    usd_per_input_token: FloatArray
    usd_per_output_token: FloatArray
    typical_output_tokens: FloatArray
    output_known: BoolArray
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, prices: Mapping[str, tuple[float, float]], train: OutcomeTable) -> PriceTable:
        """From (USD per input token, USD per output token) of each model. Raises `InputError` for a missing price."""
        missing = [model for model in train.models if model not in prices]
        if missing:
            listed = ", ".join(prices) or "none"
            raise InputError(f"no price for {', '.join(missing)}; prices are given for: {listed}")
        known = ~np.isnan(train.output_tokens)
        counts = known.sum(axis=0)
        typical = np.where(known, train.output_tokens, 0.0).sum(axis=0) / np.maximum(counts, 1)
        return cls(
            models=train.models,
            usd_per_input_token=np.array([prices[model][0] for model in train.models], dtype=np.float64),
            usd_per_output_token=np.array([prices[model][1] for model in train.models], dtype=np.float64),
            typical_output_tokens=typical,
            output_known=counts > 0,
            notes=_notes(train.models, known),
        )

    def cost_usd(self, input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
        """(R, M) USD of calls with these tokens (R, M); output counts only where the model has known output tokens."""
        charged = np.where(self.output_known, output_tokens, 0.0)
        return np.asarray(input_tokens * self.usd_per_input_token + charged * self.usd_per_output_token)

    def recorded_cost_usd(self, table: OutcomeTable) -> FloatArray:
        """(R, M) USD that each recorded answer cost, missing tokens filled in as the module's docstring says."""
        output = np.where(np.isnan(table.output_tokens), self.typical_output_tokens, table.output_tokens)
        return self.cost_usd(filled_input_tokens(table), output)


def filled_input_tokens(table: OutcomeTable) -> FloatArray:
    """(R, M) input tokens without gaps: a router knows the question's length before it asks."""
    known = ~np.isnan(table.input_tokens)
    sums = np.where(known, table.input_tokens, 0.0).sum(axis=1)
    counts = known.sum(axis=1)
    rows = sums / np.maximum(counts, 1)
    for row in np.flatnonzero(counts == 0):
        rows[row] = count_text_tokens(table.queries[row])
    return np.where(known, table.input_tokens, rows[:, None])


def _notes(models: Sequence[str], known: BoolArray) -> tuple[str, ...]:
    counts = known.sum(axis=0)
    if not counts.any():
        return ("No output tokens are recorded: cost is that of the input alone, in forecasts and in what is charged.",)
    without = [model for model, count in zip(models, counts, strict=True) if not count]
    if not without:
        return ()
    return (f"No output tokens are recorded for {', '.join(without)}: these are charged for their input alone.",)
