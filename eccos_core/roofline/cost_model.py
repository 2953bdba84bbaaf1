"""The seconds of one pass through a model: the larger of computing and reading, for every kernel of a layer.

The roofline is Williams, Waterman and Patterson (2009). The split by prefill and decode follows Vidur (MLSys 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from eccos_core.errors import InputError
from eccos_core.roofline.architecture import AttentionWindow, ModelArchitecture
from eccos_core.roofline.gpus import Gpu

_ATTENTION_BLOCK = 128  # cached tokens that a decoding kernel reads at once
_ALL_REDUCE_SHARE, _ALL_REDUCE_S = 0.7, 20e-6  # of the links between GPUs; not fitted to a table
_ELEMENTWISE_KERNELS = 5


@dataclass(frozen=True, slots=True)
class ModelPass:
    """What one pass computes. Chunks of prompts are read, and sequences decode one token each.

    `prefill_pairs` sums q c + q (q + 1) / 2 over the chunks, where q tokens are read after c that are cached: a token
    attends to those before it and to itself. `decode_context` sums the cached tokens of the sequences that decode.
    `windowed_pairs` and `windowed_context` are the same sums for layers with a sliding window. None: not counted, and
    the most that a window allows is reckoned with.
    """

    prefill_tokens: int = 0
    prefill_pairs: int = 0
    prefills: int = 0
    decodes: int = 0
    decode_context: int = 0
    windowed_pairs: int | None = None
    windowed_context: int | None = None

    @property
    def tokens(self) -> int:
        """All tokens that pass through the matrices."""
        return self.prefill_tokens + self.decodes

    @classmethod
    def of(cls, chunks: list[tuple[int, int]], decode_contexts: list[int], window: int = 0) -> ModelPass:
        """Sum up chunks, as (tokens read, tokens cached before), and the cached tokens of each decoding sequence.

        With a `window`, sum up what a layer sees through it too.
        """
        return cls(
            prefill_tokens=sum(read for read, _ in chunks),
            prefill_pairs=sum(count_pairs(read, cached) for read, cached in chunks),
            prefills=len(chunks),
            decodes=len(decode_contexts),
            decode_context=sum(decode_contexts),
            windowed_pairs=sum(count_pairs(*chunk, window) for chunk in chunks) if window else None,
            windowed_context=sum(min(context, window) for context in decode_contexts) if window else None,
        )

    def within(self, window: int) -> ModelPass:
        """Return the pass as a layer sees it that has a sliding window."""
        pairs, context = self.windowed_pairs, self.windowed_context
        if pairs is None:
            pairs = min(self.prefill_pairs, self.prefill_tokens * window)
        if context is None:
            context = min(self.decode_context, self.decodes * window)
        return replace(self, prefill_pairs=pairs, decode_context=context)


def count_pairs(read: int, cached: int, window: int = 0) -> int:
    """Count the pairs of tokens that attend, when `read` tokens follow `cached` ones and see themselves.

    With a `window`, each sees at most as many.
    """
    short = read if not window else max(0, min(read, window - cached))  # tokens that see all before them
    return short * cached + short * (short + 1) // 2 + (read - short) * window


class PassCost(Protocol):
    """Says what one pass takes."""

    @property
    def window(self) -> AttentionWindow:
        """What the model keeps of a long sequence in its cache."""
        ...

    def seconds(self, work: ModelPass) -> float:
        """Return the seconds of one pass."""
        ...


@dataclass(frozen=True, slots=True)
class LinearCost:
    """A cost fitted to a server: a start, and a share for every token read, token decoded and cached token of those."""

    start_s: float
    prefill_token_s: float
    decode_s: float
    context_token_s: float = 0.0

    @property
    def window(self) -> AttentionWindow:
        """No window: a table of seconds does not tell of one."""
        return AttentionWindow()

    def seconds(self, work: ModelPass) -> float:
        """Return the seconds of one pass."""
        return (
            self.start_s
            + self.prefill_token_s * work.prefill_tokens
            + self.decode_s * work.decodes
            + self.context_token_s * work.decode_context
        )


@dataclass(frozen=True)
class RooflineCost:
    """A model on `shards` GPUs of one kind (tensor parallel). `overhead_s` is what the host adds to every pass."""

    gpu: Gpu
    model: ModelArchitecture
    shards: int = 1
    overhead_s: float = 0.0
    _matrices: dict[tuple[int, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.shards < 1 or self.model.kv_heads % self.shards:
            raise InputError(
                f"shards is {self.shards}, must divide the {self.model.kv_heads} KV heads of {self.model.name}"
            )
        if self.overhead_s < 0:
            raise InputError(f"overhead is {self.overhead_s} s, must be >= 0")
        if self.weights_bytes_per_gpu > self.gpu.memory_bytes:
            raise InputError(
                f"{self.model.name} needs {self.weights_bytes_per_gpu / 1e9:.0f} GB a GPU for its weights, and a "
                f"{self.gpu.name} has {self.gpu.memory_bytes / 1e9:.0f} GB; use more shards or another GPU"
            )

    @property
    def window(self) -> AttentionWindow:
        """What the model keeps of a long sequence in its cache."""
        return self.model.attention_window

    @property
    def weights_bytes_per_gpu(self) -> float:
        """Bytes of the weights that one GPU holds."""
        return self.model.weight_bytes / self.shards

    def kv_tokens(self, memory_share: float = 0.9) -> int:
        """Return the tokens that fit in the cache, when the engine takes `memory_share` of the GPU's memory."""
        free = memory_share * self.gpu.memory_bytes - self.weights_bytes_per_gpu
        return max(0, int(free * self.shards / self.model.kv_bytes_per_token))

    def seconds(self, work: ModelPass) -> float:
        """Return the seconds of one pass. A pass without tokens takes none."""
        if work.tokens == 0:
            return 0.0
        key = (work.tokens, work.prefills + work.decodes)
        if key not in self._matrices:
            self._matrices[key] = self.matrices_s(*key)
        windowed = self.model.windowed_layers
        attention = (self.model.layers - windowed) * self.attention_s(work)
        if windowed:
            attention += windowed * self.attention_s(work.within(self.model.window))
        return self.overhead_s + self._matrices[key] + attention

    def matrices_s(self, tokens: int, samples: int) -> float:
        """Return the seconds of everything but attention: all layers for `tokens`, and the output for `samples`."""
        head = self.matrix_s(samples, self.model.hidden, self.model.vocabulary // self.shards)
        return self.model.layers * (self.layer_s(tokens) + self._all_reduce_s(tokens)) + head

    def layer_s(self, tokens: int) -> float:
        """Return the seconds of one layer without attention."""
        products = sum(self.matrix_s(tokens, *sizes) for sizes in self.model.layer_matrices(self.shards))
        products += sum(self.experts_s(tokens, *sizes) for sizes in self.model.expert_matrices(self.shards))
        efficiency = self.gpu.efficiency
        moved = tokens * self.model.elementwise_width(self.shards) * self.model.bytes_per_kv
        elementwise = moved / (efficiency.elementwise * self.gpu.bandwidth)
        return products + elementwise + _ELEMENTWISE_KERNELS * efficiency.elementwise_kernel_s

    def matrix_s(self, tokens: int, inputs: int, outputs: int) -> float:
        """Return the seconds of one product of (tokens, inputs) with (inputs, outputs)."""
        efficiency = self.gpu.efficiency
        compute_s = 2.0 * tokens * inputs * outputs / (efficiency.compute * self.gpu.flops)
        moved = inputs * outputs * self.model.bytes_per_weight + tokens * (inputs + outputs) * self.model.bytes_per_kv
        return max(compute_s, moved / (efficiency.memory * self.gpu.bandwidth)) + efficiency.kernel_s

    def experts_s(self, tokens: int, inputs: int, outputs: int) -> float:
        """Return the seconds of one product of the experts. Each token passes some, all used ones are read."""
        efficiency, model = self.gpu.efficiency, self.model
        passed = tokens * model.active_experts
        compute_s = 2.0 * passed * inputs * outputs / (efficiency.compute * self.gpu.flops)
        moved = model.experts_read(tokens) * inputs * outputs * model.bytes_per_weight
        moved += passed * (inputs + outputs) * model.bytes_per_kv
        return max(compute_s, moved / (efficiency.memory * self.gpu.bandwidth)) + efficiency.kernel_s

    def attention_s(self, work: ModelPass) -> float:
        """Return the seconds of the attention of one layer."""
        efficiency, model = self.gpu.efficiency, self.model
        seconds = 0.0
        if work.prefill_pairs:
            operations = 4.0 * work.prefill_pairs * model.heads * model.head_dim / self.shards
            # queries and answers of all heads, keys and values of the KV heads
            width = 2 * (model.heads + model.kv_heads) * model.head_dim * model.bytes_per_kv / self.shards
            seconds += operations / (efficiency.attention_compute * self.gpu.flops) + efficiency.attention_kernel_s
            seconds += work.prefill_tokens * width / (efficiency.attention_memory * self.gpu.bandwidth)
        if work.decodes:
            read = work.decode_context + work.decodes * _ATTENTION_BLOCK / 2  # whole blocks are read
            moved = read * 2 * model.kv_heads * model.head_dim * model.bytes_per_kv / self.shards
            seconds += moved / (efficiency.attention_memory * self.gpu.bandwidth) + efficiency.attention_kernel_s
        return seconds

    def _all_reduce_s(self, tokens: int) -> float:
        """Return the seconds that the GPUs of one model take to add up their results, twice a layer."""
        if self.shards == 1:
            return 0.0
        moved = 2 * (self.shards - 1) / self.shards * tokens * self.model.hidden * self.model.bytes_per_kv
        return 2 * (moved / (_ALL_REDUCE_SHARE * self.gpu.link_bandwidth) + _ALL_REDUCE_S)
