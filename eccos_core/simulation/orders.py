"""The order in which questions arrive: by chance, by difficulty, or by the sizes of a trace."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError, did_you_mean

StreamOrder = Literal["random", "easy_first", "hard_first", "hard_bursts", "length"]
ORDERS: tuple[StreamOrder, ...] = get_args(StreamOrder)
HARD_SHARE, BURSTS = 0.125, 4  # the hardest eighth comes in four bursts


def check_order(name: str) -> StreamOrder:
    """Return the order of this name. Raises `InputError` for another name."""
    for known in ORDERS:
        if name == known:
            return known
    raise InputError(f"unknown order {name!r}{did_you_mean(name, ORDERS)} Known: {', '.join(ORDERS)}.")


def arrange(
    order: StreamOrder,
    best_quality: FloatArray,
    length: FloatArray,
    size: FloatArray | None,
    generator: np.random.Generator,
) -> IntArray:
    """Return the places (N,) of questions in the order of their arrival. They come in random order.

    best_quality (N,): the forecast of each question's best model. The lower it is, the harder the question.
    length (N,): its output tokens. size (N,): of the requests of a trace, in the order of arrival.

    `hard_bursts`: the hardest eighth comes in four bursts at even distances. `length`: the request with the k-th
    greatest size gets the question with the k-th longest answer. Unknown sizes and lengths count as the median.
    Raises `InputError` for `length` without sizes.
    """
    count = len(best_quality)
    match order:
        case "random":
            return np.arange(count)
        case "easy_first":
            return np.argsort(-best_quality, kind="stable")
        case "hard_first":
            return np.argsort(best_quality, kind="stable")
        case "hard_bursts":
            return _hard_bursts(best_quality, generator)
        case "length":
            if size is None or not np.isfinite(size).any():
                raise InputError(
                    "the order `length` gives the largest requests of a trace the longest answers, but these arrivals "
                    "have no sizes. Give --arrivals trace:FILE with sizes, or another order."
                )
            if not np.isfinite(length).any():
                raise InputError("the order `length` needs output tokens in the outcomes. Give another order.")
            placed = np.empty(count, dtype=np.int64)
            placed[_rank(size)] = _rank(length)
            return placed


def _rank(values: FloatArray) -> IntArray:
    """Return the places (N,) from the least value to the greatest."""
    return np.argsort(np.where(np.isfinite(values), values, np.nanmedian(values)), kind="stable")


def _hard_bursts(best_quality: FloatArray, generator: np.random.Generator) -> IntArray:
    by_hardness = np.argsort(best_quality, kind="stable")
    hard = generator.permutation(by_hardness[: round(HARD_SHARE * len(best_quality))])
    others = generator.permutation(by_hardness[len(hard) :])
    parts = zip(np.array_split(others, BURSTS), np.array_split(hard, BURSTS), strict=True)
    return np.concatenate([part for pair in parts for part in pair])
