"""One model of the pool, and what it can do."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from eccos_core.domain.arrays import FloatArray
from eccos_core.domain.context_price import ContextPrice
from eccos_core.errors import InputError


class Capability(StrEnum):
    """What a request may need and a model may offer. The optimizer never trades it against cost."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the pool, as routing sees it.

    Prices are in USD per token. A model that costs nothing has the price 0.0. `max_concurrency` is the most requests
    in flight at once (None: no cap). `context_window` is the most tokens of input and output together.
    `max_output_tokens` is the most tokens of one answer. `effort_of` names the deployment of a model that is one of
    its efforts (`large` for `large@low`), and is empty for others. `context_price` is a price that grows with the
    context. Where it is given it holds, and the prices per token are those of a short context. `cache_lifetime_s` is
    how many seconds the provider keeps the cache of a prompt after its last use (None: nobody said). Raises
    `InputError` for an empty name, a price that is negative or not finite, and a cap below 1.
    """

    name: str
    usd_per_input_token: float
    usd_per_output_token: float
    usd_per_cached_input_token: float | None = None
    usd_per_reasoning_token: float | None = None
    max_concurrency: int | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[Capability] = frozenset({Capability.STREAMING})
    tags: frozenset[str] = frozenset()
    provider: str = ""
    effort_of: str = ""
    context_price: ContextPrice | None = None
    cache_lifetime_s: float | None = None

    def call_usd(self, input_tokens: FloatArray | float, output_tokens: FloatArray | float) -> FloatArray:
        """Return what calls cost in USD, without discounts for cached tokens. The two arguments broadcast."""
        if self.context_price is not None:
            price = self.context_price
            return np.asarray(price.input_usd(input_tokens) + price.output_usd(input_tokens, output_tokens))
        return np.asarray(
            np.asarray(input_tokens) * self.usd_per_input_token + np.asarray(output_tokens) * self.usd_per_output_token
        )

    @property
    def deployment(self) -> str:
        """What its slots, rates and circuit breaker belong to: `effort_of`, or the model itself.

        All efforts of a deployment share them.
        """
        return self.effort_of or self.name

    def is_named_in(self, names: AbstractSet[str]) -> bool:
        """Whether a list of names holds this model, by its own name or by that of its deployment."""
        return self.name in names or self.deployment in names

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a model needs a name, got an empty string")
        for label in ("usd_per_input_token", "usd_per_output_token"):
            price = getattr(self, label)
            if not (math.isfinite(price) and price >= 0):
                raise InputError(f"model {self.name!r}: {label} is {price}, must be a number >= 0")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise InputError(f"model {self.name!r}: max_concurrency is {self.max_concurrency}, must be >= 1")
