"""A view: what one encoder saw of the questions, and the base learners that learnt from it.

A concatenated encoder puts several unit vectors side by side. Neighbours in one common space are a compromise between
them; learning from each on its own and stacking the opinions is better (measured, docs/prediction.md). The parts need
not be declared: the squared length of a part is the same in every row, so the cumulative squared length of the vectors
is constant exactly where a part ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.familiarity import Familiarity
from eccos_core.predictors.retrieval import support
from eccos_core.predictors.space import Look, Neighbourhood, Space
from eccos_core.predictors.study import Fitted

WIDE = 192  # numbers in a part that can stand alone; narrower ones (which words, how a text looks) join every view
LEAST_ROWS = 10  # rows needed to tell a part's end from chance
SAME_LENGTH = 1e-4  # deviation of a cumulative squared length that is constant


def find_parts(vectors: Float32Array) -> list[slice]:
    """The columns of each part of vectors (N, D); one part where they are of one piece, or too few to tell."""
    dimensions = vectors.shape[1]
    if len(vectors) < LEAST_ROWS or dimensions <= WIDE:
        return [slice(0, dimensions)]
    cumulative = np.cumsum(vectors[:4096].astype(np.float64) ** 2, axis=1)
    ends = np.flatnonzero(cumulative.std(axis=0) < SAME_LENGTH)
    parts, start, before = [], 0, 0.0
    for end in (*ends.tolist(), dimensions - 1):
        length = float(cumulative[0, end])
        if end >= start and (length - before > SAME_LENGTH or end == dimensions - 1):
            parts.append(slice(start, end + 1))
            start, before = end + 1, length
    return parts


def find_views(vectors: Float32Array) -> list[IntArray]:
    """The columns of each view: every wide part with all narrow ones; all columns where fewer than two are wide."""
    parts = find_parts(vectors)
    columns = [np.arange(part.start, part.stop) for part in parts]
    wide = [part for part in columns if len(part) >= WIDE]
    narrow = [part for part in columns if len(part) < WIDE]
    if len(wide) < 2:
        return [np.arange(vectors.shape[1])]
    return [np.concatenate([part, *narrow]) for part in wide]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One view of a fitted predictor.

    columns (d,): which numbers of a vector it reads; stretch: what makes their length one. points (N, F): the history's
    questions in `space`. learners: (name, what it learnt). typical: squared distance of near questions.
    """

    columns: IntArray
    stretch: float
    space: Space
    points: Float32Array
    squared_lengths: Float32Array
    learners: tuple[tuple[str, Fitted], ...]
    familiarity: Familiarity
    typical: float

    def look(self, vectors: Float32Array, input_tokens: FloatArray) -> Look:
        """New questions, vectors (R, D), as this view's learners see them."""
        whole = self.space.whole(self.read(vectors), input_tokens)
        return Look(whole, self.space.points(whole), self.points, self.squared_lengths)

    def read(self, vectors: Float32Array) -> Float32Array:
        """(R, d) the view's numbers of vectors (R, D)."""
        return read_columns(vectors, self.columns, self.stretch)

    def opinions(self, look: Look) -> Float32Array:
        """(R, L, C) of all learners."""
        return np.concatenate([learner.predict(look) for _, learner in self.learners], axis=1)

    def familiar(self, look: Look) -> FloatArray:
        """(R,) how like the history each question is, in [0, 1]."""
        return self.familiarity.of(look.neighbourhood, left_out(look.whole, look.points))

    def support(self, near: Neighbourhood) -> FloatArray:
        """(R,) how many neighbours stand behind a forecast."""
        return support(near, self.typical)


def read_columns(vectors: Float32Array, columns: IntArray, stretch: float) -> Float32Array:
    """(R, d) the columns of vectors (R, D), stretched; the vectors themselves where that changes nothing."""
    if len(columns) == vectors.shape[1]:
        return vectors
    return np.asarray(vectors[:, columns] * np.float32(stretch))


def stretch_of(vectors: Float32Array, columns: IntArray) -> float:
    """What makes the columns' typical length one."""
    if len(columns) == vectors.shape[1]:
        return 1.0
    length = float(np.median(np.sqrt((vectors[:, columns].astype(np.float64) ** 2).sum(axis=1))))
    return 1.0 / length if length > 1e-9 else 1.0


def left_out(whole: Float32Array, points: Float32Array) -> FloatArray:
    """(R,) squared length that the axes leave out of whole features (R, D + 1) seen as points (R, F)."""
    all_of_it = np.einsum("rd,rd->r", whole, whole)
    return np.asarray(all_of_it - np.einsum("rf,rf->r", points, points), dtype=np.float64)
