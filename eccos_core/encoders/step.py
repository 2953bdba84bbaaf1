"""The vector of an agent's step: that of its task, and the numbers of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.errors import InputError
from eccos_core.io.agent_step import STEP_FEATURES, AgentStep, split_step
from eccos_core.protocols import Encoder

VERSION = 1
CLIP = 2.0  # standard deviations
# (feature, whether its logarithm counts, its typical value, its standard deviation): constants, nothing is fitted
_SCALES: tuple[tuple[str, bool, float, float], ...] = (
    ("turn", True, 1.2, 0.6),
    ("errors", True, 0.35, 0.35),
    ("repeats", True, 0.35, 0.35),
    ("progress", False, 0.6, 0.4),
    ("reads", True, 0.7, 0.7),
    ("writes", True, 0.7, 0.7),
    ("runs", True, 0.7, 0.7),
    ("context", True, 8.0, 1.5),
    ("observed", True, 5.0, 2.0),
)
assert tuple(name for name, *_ in _SCALES) == STEP_FEATURES
_IN_LOG = np.array([in_log for _, in_log, _, _ in _SCALES])
_TYPICAL = np.array([typical for *_, typical, _ in _SCALES])
_DEVIATION = np.array([deviation for *_, deviation in _SCALES])
_ANGLE = np.pi / (2 * CLIP)  # of one standard deviation: two values that are two apart have nothing in common


class StepEncoder:
    """An encoder that also reads the line of an agent's step (`io/agent_step.py`) at the end of a text.

    D is that of `encoder`, plus 18. The vector of a step is that of its text without the line, times sqrt(1 - w), and
    that of the numbers of the step, times sqrt(w). w is the `weight`. The similarity of two steps is the
    weighted mean of both parts. A text without such a line keeps its vector, followed by zeros. So a step is less
    similar to plain questions by sqrt(1 - w), and to a predictor that knows only those it is unfamiliar.

    Raises `InputError` for a weight outside (0, 1).
    """

    def __init__(self, encoder: Encoder, weight: float = 0.5) -> None:
        if not 0 < weight < 1:
            raise InputError(f"the weight of the step is {weight}, must be between 0 and 1")
        self._encoder = encoder
        self._weight = weight

    @property
    def name(self) -> str:
        """The version of the features, their weight, and the name of the encoder of the text."""
        return f"step:v{VERSION}({self._weight:g}, {self._encoder.name})"

    @property
    def dimensions(self) -> int:
        """D of the encoder of the text, and 18."""
        return self._encoder.dimensions + 2 * len(_SCALES)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(len(texts), D) float32, unit length."""
        parts = [split_step(text) for text in texts]
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        vectors[:, : self._encoder.dimensions] = self._encoder.encode([text for text, _ in parts])
        rows = [row for row, (_, step) in enumerate(parts) if step is not None]
        if rows:
            vectors[rows] *= np.float32(np.sqrt(1 - self._weight))
            steps = encode_steps([step for _, step in parts if step is not None])
            vectors[rows, self._encoder.dimensions :] = np.sqrt(self._weight) * steps
        return vectors


def encode_steps(steps: Sequence[AgentStep]) -> FloatArray:
    """Return unit vectors of steps, (len(steps), 18): cosine and sine of an angle for each of nine features.

    Features are in standard deviations from a typical value, clipped at 2. The similarity of two steps is the mean
    cosine of the differences of their angles. Two values that are two standard deviations apart have similarity 0.
    """
    raw = np.array([astuple(step) for step in steps], dtype=np.float64).reshape(-1, len(_SCALES))
    values = np.where(_IN_LOG, np.log1p(np.maximum(raw, 0.0)), raw)
    angles = np.clip((values - _TYPICAL) / _DEVIATION, -CLIP, CLIP) * _ANGLE
    vectors: FloatArray = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(len(_SCALES))
    return vectors
