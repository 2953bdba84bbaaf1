"""Price files: what a token of each model costs, and whether recorded costs fit them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eccos_core.domain import OutcomeTable
from eccos_core.errors import DataError
from eccos_core.io.files import describe, parse_object

_PRICE_KEYS = {
    "usd_per_input_token": (0, 1),
    "usd_per_output_token": (1, 1),
    "usd_per_million_input_tokens": (0, 1_000_000),
    "usd_per_million_output_tokens": (1, 1_000_000),
}
MAX_COST_RATIO = 10.0  # between recorded cost and tokens times price, beyond which one of them looks wrong


def read_prices(path: str | Path, models: Sequence[str] = ()) -> dict[str, tuple[float, float]]:
    """(USD per input token, USD per output token) per model, from a JSON file of
    `{model: {"usd_per_million_input_tokens": 5, "usd_per_million_output_tokens": 15}}`, or the same per token.

    Raises `DataError` for a file that is no such thing, and when one of `models` has no price: it names them.
    """
    file = str(path)
    try:
        content = parse_object(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf"), file, None)
    except OSError as error:
        raise DataError(file, f"cannot be read ({error.strerror or error})") from error
    prices = {name: _price(name, entry, file) for name, entry in content.items()}
    missing = [model for model in models if model not in prices]
    if missing:
        known = ", ".join(prices) or "none"
        raise DataError(file, f"no price for {', '.join(missing)}; the file has: {known}")
    return prices


def _price(name: str, entry: Any, file: str) -> tuple[float, float]:
    if not isinstance(entry, dict):
        raise DataError(
            file, f"{name}: the price is {describe(entry)}, must be an object with {' and '.join(_PRICE_KEYS)}"
        )
    found: list[float | None] = [None, None]
    for key, value in entry.items():
        if key not in _PRICE_KEYS:
            continue
        side, tokens = _PRICE_KEYS[key]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise DataError(file, f"{name}: {key} is {describe(value)}, must be a finite number >= 0")
        if found[side] is not None:
            raise DataError(file, f"{name}: {key} is given per token and per million tokens; keep one of the two")
        found[side] = value / tokens
    if found[0] is None or found[1] is None:
        side_name = "input" if found[0] is None else "output"
        raise DataError(file, f"{name}: usd_per_million_{side_name}_tokens is missing (0 where it is free of charge)")
    return found[0], found[1]


def describe_contradicting_costs(table: OutcomeTable, prices: Mapping[str, tuple[float, float]]) -> list[str]:
    """Name each model whose recorded cost is over 10 times its tokens times its price, or under a tenth, by the median.

    Reasoning that is not counted, caches and discounts explain a factor of a few. A factor of 1,000 is a wrong unit.
    """
    found = []
    for column, model in enumerate(table.models):
        if table.cost_usd is None or model not in prices:
            continue
        read, wrote = prices[model]
        by_tokens = table.input_tokens[:, column] * read + table.output_tokens[:, column] * wrote
        both = np.flatnonzero((by_tokens > 0) & ~np.isnan(table.cost_usd[:, column]))
        if not both.size:
            continue
        ratio = table.cost_usd[both, column] / by_tokens[both]
        typical = float(np.median(ratio))
        if not 1 / MAX_COST_RATIO <= typical <= MAX_COST_RATIO:
            row = int(both[np.argsort(ratio)[len(both) // 2]])
            found.append(
                f"{model}: the recorded cost_usd is {typical:.2g} times tokens x price (question "
                f"{table.question_ids[row]!r}: {table.cost_usd[row, column]:.3g} USD recorded, "
                f"{by_tokens[row]:.3g} USD by its tokens). The recorded cost is charged. Check its unit, the tokens "
                "and the price."
            )
    return found
