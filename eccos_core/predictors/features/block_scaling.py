"""Scale the blocks of a concatenated vector, so that each block varies as much as the others.

A concatenated encoder puts several unit vectors side by side. Their variances differ: an intermediate layer of a
transformer varies a third as much as the last layer. Without scaling, the last layer would dominate every distance.

You need not declare the blocks. Every row has the same squared length in a block, so the cumulative squared length of
a row is constant exactly where a block ends.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray

SEMANTIC_WIDTH = 192  # columns: a block at least this wide is an embedding of the meaning
SURFACE_WIDTH = 32  # columns: a block at most this wide describes the surface; between the two it is a bag of words
WORDS_WEIGHT = 0.7  # standard deviation of a bag of words, against 1 for other blocks (chosen on training folds)
MIN_ROWS = 10  # with fewer rows, a constant length may be chance
CONSTANT_LENGTH = 1e-4  # largest standard deviation of a cumulative squared length that counts as constant
MIN_DEVIATION = 1e-6  # a block that varies less than this is constant
_ROWS_READ = 4096


def find_blocks(vectors: Float32Array) -> list[slice]:
    """Return the columns of each block of vectors (N, D).

    You get one block if the vectors have only one, or if there are fewer than 10 rows.
    """
    dimensions = vectors.shape[1]
    if len(vectors) < MIN_ROWS or dimensions <= SEMANTIC_WIDTH:
        return [slice(0, dimensions)]
    cumulative = np.cumsum(vectors[:_ROWS_READ].astype(np.float64) ** 2, axis=1)
    ends = np.flatnonzero(cumulative.std(axis=0) < CONSTANT_LENGTH)
    blocks, start, length_before = [], 0, 0.0
    for end in (*ends.tolist(), dimensions - 1):
        length = float(cumulative[0, end])
        if end >= start and (length - length_before > CONSTANT_LENGTH or end == dimensions - 1):
            blocks.append(slice(start, end + 1))
            start, length_before = end + 1, length
    return blocks


def block_weights(vectors: Float32Array, blocks: list[slice]) -> FloatArray:
    """Return the scale (D,) of each column of vectors (N, D).

    A scaled block has its weight as standard deviation. All blocks together have variance one.
    """
    scale = np.ones(vectors.shape[1])
    total = 0.0
    for block in blocks:
        weight = WORDS_WEIGHT if SURFACE_WIDTH < _width(block) < SEMANTIC_WIDTH else 1.0
        deviation = float(np.sqrt(vectors[:, block].astype(np.float64).var(axis=0).sum()))
        scale[block] = weight / deviation if deviation > MIN_DEVIATION else 0.0
        total += weight**2
    return np.asarray(scale / np.sqrt(total))


def surface_columns(blocks: list[slice]) -> IntArray:
    """Return the columns of the blocks that describe a text's surface. Empty if there is only one block."""
    narrow = [np.arange(block.start, block.stop) for block in blocks if _width(block) <= SURFACE_WIDTH]
    return np.concatenate([np.empty(0, dtype=np.int64), *(narrow if len(blocks) > 1 else [])])


def _width(block: slice) -> int:
    return int(block.stop - block.start)
