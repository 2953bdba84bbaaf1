"""An encoder that counts how many texts it is given at once."""

from __future__ import annotations

from collections.abc import Sequence

from eccos_core.domain import Float32Array
from eccos_core.protocols import Encoder


class CountingEncoder:
    """Encodes as another encoder does. `sizes` has the number of texts of every call."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.sizes: list[int] = []

    @property
    def name(self) -> str:
        """The name of the encoder behind it."""
        return self._encoder.name

    @property
    def dimensions(self) -> int:
        """Its dimensions."""
        return self._encoder.dimensions

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """See `Encoder`."""
        self.sizes.append(len(texts))
        return self._encoder.encode(texts)
