"""Why this model: what each model was forecast to do, and which one another price of quality would have chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PriceRange:
    """The model that is best from one price of quality to another, in USD per unit of quality. The last has no end."""

    model: str
    from_usd_per_quality: float
    to_usd_per_quality: float | None


def best_by_price(
    forecast: Mapping[str, tuple[float, float]], left_out: Collection[str] = ()
) -> tuple[PriceRange, ...]:
    """Return which model minimises cost - lambda * quality, for each lambda from 0.

    `forecast` maps a model to (quality, cost in USD). Each model is a line in lambda, so the best ones form the lower
    envelope of the lines. Models of `left_out` might not answer. Of equal models the first one counts.
    """
    candidates = [(name, *both) for name, both in forecast.items() if name not in left_out]
    if not candidates:
        return ()
    name, quality, cost = min(candidates, key=lambda each: (each[2], -each[1]))
    ranges: list[PriceRange] = []
    price = 0.0
    while True:
        better = [each for each in candidates if each[1] > quality]
        if not better:
            return (*ranges, PriceRange(name, price, None))
        following = min(better, key=lambda each: ((each[2] - cost) / (each[1] - quality), -each[1]))
        until = (following[2] - cost) / (following[1] - quality)
        if until > price:
            ranges.append(PriceRange(name, price, until))
        price = max(price, until)
        name, quality, cost = following


def choose_at(ranges: tuple[PriceRange, ...], usd_per_quality: float) -> str | None:
    """Return the model of the range that a price lies in. None without ranges."""
    for each in ranges:
        if each.to_usd_per_quality is None or usd_per_quality < each.to_usd_per_quality:
            return each.model
    return None
