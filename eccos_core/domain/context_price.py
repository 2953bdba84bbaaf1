"""A price per token that grows with the context, as on a GPU of your own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain.arrays import FloatArray
from eccos_core.errors import InputError


@dataclass(frozen=True, slots=True)
class ContextPrice:
    """What a token costs at K context lengths, in USD. A price between two lengths lies on the line between them.

    `contexts` (K,) are tokens and rise. `usd_per_input_token` (K,) is the mean price of the tokens of a prompt of that
    length. `usd_per_output_token` (K,) is the price of one token that is written after that many. Below the first
    length the price is that of the first. Beyond the last it goes on along the last line. Raises `InputError` for
    lengths that do not rise, and for prices that are negative or not finite.
    """

    contexts: tuple[int, ...]
    usd_per_input_token: tuple[float, ...]
    usd_per_output_token: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.contexts), len(self.usd_per_input_token), len(self.usd_per_output_token)}
        if len(sizes) > 1 or len(self.contexts) < 2:
            raise InputError(f"a context price needs the same number of lengths and prices, at least 2, got {sizes}")
        if self.contexts[0] < 1 or any(np.diff(self.contexts) <= 0):
            raise InputError(f"the context lengths are {self.contexts}, must be >= 1 and rise")
        prices = np.array([self.usd_per_input_token, self.usd_per_output_token])
        if not np.isfinite(prices).all() or (prices < 0).any():
            raise InputError("a context price must be a number >= 0 at every length")

    def input_usd(self, input_tokens: FloatArray | float) -> FloatArray:
        """Return what prompts of these lengths cost, shaped like `input_tokens`."""
        tokens = np.asarray(input_tokens, dtype=np.float64)
        return tokens * self._at(tokens, self.usd_per_input_token)

    def output_usd(self, input_tokens: FloatArray | float, output_tokens: FloatArray | float) -> FloatArray:
        """Return what answers cost, each written after its prompt. The two arguments broadcast.

        The price is taken in the middle of the answer, which is the mean where the price is a line.
        """
        written = np.asarray(output_tokens, dtype=np.float64)
        middle = np.asarray(input_tokens, dtype=np.float64) + written / 2
        return written * self._at(middle, self.usd_per_output_token)

    def _at(self, tokens: FloatArray, prices: tuple[float, ...]) -> FloatArray:
        slope = (prices[-1] - prices[-2]) / (self.contexts[-1] - self.contexts[-2])
        beyond = np.maximum(tokens - self.contexts[-1], 0.0)
        return np.asarray(np.interp(tokens, self.contexts, prices) + max(slope, 0.0) * beyond)
