"""Learn from recorded cost where no tokens are counted.

The cost of an answer is modelled as its length is. If a model has output tokens, they are its length, and your prices
turn them into USD. If it has none but a recorded cost, its cost stands in for them, in a unit of the model's own: its
mean cost over `TYPICAL_OUTPUT_TOKENS`. A forecast in that unit goes back to USD.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.predictors.targets.prior import TYPICAL_OUTPUT_TOKENS


def check_cost(table: OutcomeTable) -> None:
    """Raise `InputError` for a recorded cost that is negative or infinite. It names the first one."""
    cost = np.empty((0, 0)) if table.cost_usd is None else table.cost_usd
    for row, model in np.argwhere((cost < 0) | np.isinf(cost)):
        raise InputError(
            f"question {table.question_ids[row]!r}: cost_usd of {table.models[model]} is {cost[row, model]}, it must "
            "be a finite number >= 0, or NaN where it is unknown"
        )


def fit_cost_units(table: OutcomeTable) -> FloatArray:
    """Return the unit of each model's cost in USD (M,), NaN for a model whose forecasts are in tokens."""
    if table.cost_usd is None:
        return np.full(len(table.models), np.nan)
    known = ~np.isnan(table.cost_usd)
    counts = known.sum(axis=0)
    mean = np.where(known, table.cost_usd, 0.0).sum(axis=0) / np.maximum(counts, 1)
    in_usd = (counts > 0) & np.isnan(table.output_tokens).all(axis=0)
    return np.where(in_usd, mean / TYPICAL_OUTPUT_TOKENS, np.nan)


def put_cost_for_tokens(table: OutcomeTable, usd_per_unit: FloatArray) -> OutcomeTable:
    """Return the table with recorded cost in units (M,) in place of the output tokens of the models that have a unit.

    The cost of a model that was always free has the unit 0, and is 0 in that unit.
    """
    if table.cost_usd is None or np.isnan(usd_per_unit).all():
        return table
    units = table.cost_usd / np.where(usd_per_unit > 0, usd_per_unit, 1.0)
    return replace(table, output_tokens=np.where(np.isnan(usd_per_unit), table.output_tokens, units))
