"""The parts of a concatenated vector, found again, and made equally loud.

A concatenated encoder puts several unit vectors side by side. How far apart their texts lie differs from part to part:
the middle layer of a transformer varies a third as much as its last, and would drown in it. What a predictor reads is
therefore scaled so that every part varies equally. The parts need not be declared: the squared length of a part is the
same in every row, so the cumulative squared length of the vectors is constant exactly where a part ends.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray

WIDE = 192  # numbers of a part that tells what a text means
NARROW = 32  # at most so many tell how a text looks; those in between tell which words it has
WORDS_WEIGHT = 0.7  # of a part that tells which words, beside 1 for the others (chosen on training folds)
LEAST_ROWS = 10  # rows needed to tell a part's end from chance
SAME_LENGTH = 1e-4  # deviation of a cumulative squared length that is constant
_ROWS_READ = 4096


def find_blocks(vectors: Float32Array) -> list[slice]:
    """The columns of each part of vectors (N, D); one part where they are of one piece, or too few to tell."""
    dimensions = vectors.shape[1]
    if len(vectors) < LEAST_ROWS or dimensions <= WIDE:
        return [slice(0, dimensions)]
    cumulative = np.cumsum(vectors[:_ROWS_READ].astype(np.float64) ** 2, axis=1)
    ends = np.flatnonzero(cumulative.std(axis=0) < SAME_LENGTH)
    parts, start, before = [], 0, 0.0
    for end in (*ends.tolist(), dimensions - 1):
        length = float(cumulative[0, end])
        if end >= start and (length - before > SAME_LENGTH or end == dimensions - 1):
            parts.append(slice(start, end + 1))
            start, before = end + 1, length
    return parts


def block_weights(vectors: Float32Array, parts: list[slice]) -> FloatArray:
    """(D,) the scale of each column that lets every part of vectors (N, D) vary by its weight, together by one."""
    scale = np.ones(vectors.shape[1])
    total = 0.0
    for part in parts:
        weight = WORDS_WEIGHT if NARROW < _width(part) < WIDE else 1.0
        varies = float(np.sqrt(vectors[:, part].astype(np.float64).var(axis=0).sum()))
        scale[part] = weight / varies if varies > 1e-6 else 0.0  # a part that never varied tells nothing
        total += weight**2
    return np.asarray(scale / np.sqrt(total))


def surface_columns(parts: list[slice]) -> IntArray:
    """The columns of narrow parts: how a text looks. None where the vectors are of one piece."""
    narrow = [np.arange(part.start, part.stop) for part in parts if _width(part) <= NARROW]
    return np.concatenate([np.empty(0, dtype=np.int64), *(narrow if len(parts) > 1 else [])])


def _width(part: slice) -> int:
    return int(part.stop - part.start)
