"""Several encoders side by side, as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.errors import InputError
from eccos_core.protocols import Encoder


class ConcatenatedEncoder:
    """The vectors of several encoders one after the other; D is the sum of theirs.

    Part p is scaled by sqrt(w_p / sum w), so that rows keep unit length and the similarity of two texts is the
    weighted mean of the parts' similarities. `weights` are positive, equal by default. A long text is cut by each part
    as that part cuts it.
    """

    def __init__(self, encoders: Sequence[Encoder], weights: Sequence[float] | None = None) -> None:
        if not encoders:
            raise InputError("a concatenated encoder needs at least one encoder, got none")
        shares = np.ones(len(encoders)) if weights is None else np.asarray(weights, dtype=np.float64)
        if shares.shape != (len(encoders),) or not (np.isfinite(shares).all() and (shares > 0).all()):
            raise InputError(f"weights are {weights}, must be {len(encoders)} numbers > 0, one per encoder")
        self._encoders = tuple(encoders)
        self._scales = np.sqrt(shares / shares.sum()).astype(np.float32)
        listed = " + ".join(f"{share:g} {encoder.name}" for share, encoder in zip(shares, encoders, strict=True))
        self._name = f"concatenated({listed})"

    @property
    def name(self) -> str:
        """The parts' names with their weights."""
        return self._name

    @property
    def dimensions(self) -> int:
        """The sum of the parts' D."""
        return sum(encoder.dimensions for encoder in self._encoders)

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(len(texts), D) float32, unit length."""
        parts = [scale * encoder.encode(texts) for scale, encoder in zip(self._scales, self._encoders, strict=True)]
        return np.concatenate(parts, axis=1)
