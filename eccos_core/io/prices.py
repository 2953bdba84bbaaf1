"""Price files: what a token of each model costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eccos_core.errors import DataError
from eccos_core.io.files import describe, parse_object

_PRICE_KEYS = {
    "usd_per_input_token": (0, 1),
    "usd_per_output_token": (1, 1),
    "usd_per_million_input_tokens": (0, 1_000_000),
    "usd_per_million_output_tokens": (1, 1_000_000),
}


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
