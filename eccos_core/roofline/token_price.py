"""USD per token of a model on a GPU of your own, by the length of its context.

A short prompt costs its matrix products. A long one costs its attention too, and its cache takes the memory that more
requests could have decoded in. So the price of both kinds of token grows with the context (Chen et al. 2025, "Cost-
Optimal Grouped-Query Attention for Long-Context Modeling", arXiv 2503.09579: the cost of inference has a time-invariant
part, the weights, and a time-variant one, attention and its cache). Times come from a roofline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eccos_core.domain import ContextPrice
from eccos_core.errors import InputError
from eccos_core.roofline.cost_model import ModelPass, PassCost

PROMPT_TOKENS_PER_PASS = 8192  # vLLM's `max_num_batched_tokens` for a server
LARGEST_BATCH = 256  # requests that decode together where memory allows more; vLLM's `max_num_seqs`
SHORTEST_CONTEXT = 128
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as it is served: what a pass takes, how many tokens its cache holds, and what an hour costs.

    `usd_per_hour` is for all of its GPUs together. `batch` is the number of requests that decode together (None: the
    most that fit, at most `largest_batch`). `windowed_share` of the layers keep the last `window` tokens alone.
    """

    name: str
    cost: PassCost
    kv_tokens: int
    usd_per_hour: float
    batch: int | None = None
    largest_batch: int = LARGEST_BATCH
    window: int = 0
    windowed_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.usd_per_hour >= 0:
            raise InputError(f"usd_per_hour is {self.usd_per_hour}, must be >= 0")
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch is {self.batch}, must be >= 1")

    def batch_at(self, context: int) -> int:
        """Return the requests of this context that decode together.

        Raises `InputError` when a context is below 1, and when not one request fits, or not the `batch` that is asked.
        """
        if context < 1:
            raise InputError(f"context is {context}, must be >= 1 token")
        held = self.held_tokens(context)
        fitting = int(self.kv_tokens / held)
        asked = self.batch or 1
        if fitting < asked:
            what = "one request" if asked == 1 else f"a batch of {asked} requests"
            raise InputError(
                f"{self.name}: {what} of {context:,} tokens needs a cache of {asked * held:,.0f} tokens, and "
                f"{self.kv_tokens:,} fit beside the weights. Take a shorter context, a smaller batch or more GPUs."
            )
        return self.batch or min(fitting, self.largest_batch)

    def held_tokens(self, context: int) -> float:
        """Return the tokens that a context keeps in the cache, on the mean over the layers."""
        return (1 - self.windowed_share) * context + self.windowed_share * min(context, self.window)

    def longest_context(self) -> int:
        """Return the longest context that fits, `batch` of them at once. At most 2^20 where windows alone are kept."""
        held = self.kv_tokens / (self.batch or 1)
        if not self.windowed_share or held <= self.window:
            return int(held)
        beyond = held - self.windowed_share * self.window
        return min(_LONGEST, int(beyond / (1 - self.windowed_share))) if self.windowed_share < 1 else _LONGEST

    def prompt_token_s(self, context: int) -> float:
        """Return the seconds per token of prompts of this length. Short ones share a pass, long ones take several."""
        if context <= PROMPT_TOKENS_PER_PASS:
            prompts = PROMPT_TOKENS_PER_PASS // context
            return self.cost.seconds(ModelPass.of([(context, 0)] * prompts, [], self.window)) / (prompts * context)
        starts = range(0, context, PROMPT_TOKENS_PER_PASS)
        chunks = [(min(PROMPT_TOKENS_PER_PASS, context - start), start) for start in starts]
        return sum(self.cost.seconds(ModelPass.of([chunk], [], self.window)) for chunk in chunks) / context

    def answer_token_s(self, context: int) -> float:
        """Return the seconds per token that is written after `context` tokens, in a full batch."""
        batch = self.batch_at(context)
        return self.cost.seconds(ModelPass.of([], [context] * batch, self.window)) / batch


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What a token costs at one context, in USD, and how many of each kind a second makes."""

    context: int
    batch: int
    usd_per_input_token: float
    usd_per_output_token: float
    input_tokens_per_s: float
    output_tokens_per_s: float


def price_tokens(served: ServedModel, context: int) -> TokenPrice:
    """Price a token of a prompt of `context` tokens, and a token that is written after as many.

    Raises `InputError` when the context does not fit.
    """
    batch = served.batch_at(context)
    prompt_s, answer_s = served.prompt_token_s(context), served.answer_token_s(context)
    usd_per_s = served.usd_per_hour / 3600
    return TokenPrice(context, batch, prompt_s * usd_per_s, answer_s * usd_per_s, 1 / prompt_s, 1 / answer_s)


def price_by_context(served: ServedModel, window: int | None = None) -> ContextPrice:
    """Price tokens at contexts of 128, 256, 512 ... tokens, up to `window` and to what the cache holds.

    Raises `InputError` when not even 256 tokens fit.
    """
    fitting = served.longest_context()
    longest = max(2 * SHORTEST_CONTEXT, min(fitting, window or fitting))
    contexts = [*_doubling(SHORTEST_CONTEXT, longest), longest]
    prices = [price_tokens(served, context) for context in contexts]
    return ContextPrice(
        tuple(contexts),
        tuple(price.usd_per_input_token for price in prices),
        tuple(price.usd_per_output_token for price in prices),
    )


def _doubling(start: int, end: int) -> Sequence[int]:
    found = []
    while start < end:
        found.append(start)
        start *= 2
    return found
