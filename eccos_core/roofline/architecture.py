"""The shape of a decoder: its matrices, its experts, and the bytes that its weights and its cache take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.errors import InputError, did_you_mean

_BYTES_OF_DTYPE = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True, slots=True)
class AttentionWindow:
    """What a sequence keeps in the cache when `windowed_layers` of `layers` layers keep its last `tokens` tokens alone.

    It is counted in layer-tokens: one token in one layer. So the sums are whole. Without a window one layer stands for
    all, and a layer-token is a token.
    """

    tokens: int = 0
    windowed_layers: int = 0
    layers: int = 1

    def __bool__(self) -> bool:
        """Say whether a layer has a window."""
        return self.windowed_layers > 0

    def held(self, tokens: int) -> int:
        """Return the layer-tokens of a sequence of `tokens` tokens."""
        if not self:
            return tokens
        return (self.layers - self.windowed_layers) * tokens + self.windowed_layers * min(tokens, self.tokens)


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """A decoder. `heads` ask, `kv_heads` are kept in the cache, each `head_dim` wide. `inner` is the width
    between the feed-forward matrices that every token passes, and `gated` says that the first of them is doubled.

    In a mixture of experts, each layer has `experts` more such pairs of the width `expert_inner`, and a token passes
    `active_experts` of them. In `windowed_layers` a token attends to the last `window` tokens alone, itself included.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    bytes_per_weight: float = 2.0
    bytes_per_kv: float = 2.0
    experts: int = 0
    active_experts: int = 0
    expert_inner: int = 0
    window: int = 0
    windowed_layers: int = 0

    def __post_init__(self) -> None:
        counts = (self.layers, self.hidden, self.heads, self.kv_heads, self.head_dim, self.vocabulary)
        if min(counts) < 1 or self.inner + self.expert_inner < 1:
            raise InputError(f"the model {self.name} has a size below 1: {counts}, inner {self.inner}")
        if self.experts and not (1 <= self.active_experts <= self.experts and self.expert_inner >= 1):
            raise InputError(
                f"the model {self.name} uses {self.active_experts} of {self.experts} experts of width "
                f"{self.expert_inner}, must be 1 or more of those that it has"
            )
        if not 0 <= self.windowed_layers <= self.layers or (self.windowed_layers and self.window < 1):
            raise InputError(
                f"the model {self.name} has a window of {self.window} tokens in {self.windowed_layers} of "
                f"{self.layers} layers"
            )
        if self.heads % self.kv_heads:
            raise InputError(
                f"the model {self.name} has {self.heads} heads, which {self.kv_heads} KV heads do not divide"
            )

    def layer_matrices(self, shards: int = 1) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of the matrix products of a layer that every token passes, on one of `shards` GPUs.

        A dense model has four. A mixture of experts has the two of its attention, those of an expert that all share,
        and the one that chooses experts.
        """
        query, keys = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        attention = ((self.hidden, (query + keys) // shards), (query // shards, self.hidden))
        dense = self._feed_forward(self.inner, shards) if self.inner else ()
        return (*attention, *dense, *(((self.hidden, self.experts),) if self.experts else ()))

    def expert_matrices(self, shards: int = 1) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of the two products of one expert, on one of `shards` GPUs that all hold a part."""
        return self._feed_forward(self.expert_inner, shards) if self.experts else ()

    def _feed_forward(self, inner: int, shards: int) -> tuple[tuple[int, int], ...]:
        up = 2 * inner if self.gated else inner
        return ((self.hidden, up // shards), (inner // shards, self.hidden))

    def experts_read(self, tokens: int) -> float:
        """Return the experts that `tokens` tokens are expected to use together, when each chooses evenly.

        One token misses an expert with the probability 1 - k / E, so E (1 - (1 - k / E)^tokens) are used.
        """
        if not self.experts:
            return 0.0
        return self.experts * (1.0 - (1.0 - self.active_experts / self.experts) ** tokens)

    def elementwise_width(self, shards: int = 1) -> float:
        """Return the numbers per token that norms, rotations, activations and sums of a layer read and write."""
        rotated = 2 * (self.heads + self.kv_heads) * self.head_dim
        activated = (3 if self.gated else 2) * (self.inner + self.active_experts * self.expert_inner)
        return 7 * self.hidden + (rotated + activated) / shards

    @property
    def weights(self) -> int:
        """The number of weights, embeddings included."""
        layer = sum(inputs * outputs for inputs, outputs in self.layer_matrices())
        layer += self.experts * sum(inputs * outputs for inputs, outputs in self.expert_matrices())
        return self.layers * layer + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return self.weights * self.bytes_per_weight

    @property
    def attention_window(self) -> AttentionWindow:
        """What its layers keep of a long sequence."""
        if not self.windowed_layers:
            return AttentionWindow()
        return AttentionWindow(self.window, self.windowed_layers, self.layers)

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that one token takes in the cache, over all layers, as long as none has left a window."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_kv


ARCHITECTURES: dict[str, ModelArchitecture] = {
    model.name: model
    for model in (
        ModelArchitecture("llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000),
        ModelArchitecture("llama-2-13b", 40, 5120, 40, 40, 128, 13824, 32000),
        ModelArchitecture("llama-2-70b", 80, 8192, 64, 8, 128, 28672, 32000),
        ModelArchitecture("llama-3-8b", 32, 4096, 32, 8, 128, 14336, 128256),
        ModelArchitecture("llama-3-70b", 80, 8192, 64, 8, 128, 28672, 128256),
        ModelArchitecture("codellama-34b", 48, 8192, 64, 8, 128, 22016, 32000),
        ModelArchitecture("mistral-7b", 32, 4096, 32, 8, 128, 14336, 32000),
        ModelArchitecture("qwen-2.5-7b", 28, 3584, 28, 4, 128, 18944, 152064),
        ModelArchitecture(
            "mixtral-8x7b", 32, 4096, 32, 8, 128, 0, 32000, experts=8, active_experts=2, expert_inner=14336
        ),
        ModelArchitecture("phi-2", 32, 2560, 32, 32, 80, 10240, 51200, gated=False),
    )
}


def architecture_named(name: str) -> ModelArchitecture:
    """Return a known model, or the one of the folder `name`. Raises `InputError` that names the known ones."""
    if name.lower() in ARCHITECTURES:
        return ARCHITECTURES[name.lower()]
    if (Path(name) / "config.json").is_file():
        return read_architecture(Path(name))
    known = ", ".join(ARCHITECTURES)
    hint = did_you_mean(name.lower(), ARCHITECTURES)
    raise InputError(f"model is {name!r}, must be one of {known}, or a folder with a config.json{hint}")


def read_architecture(folder: Path) -> ModelArchitecture:
    """Read the shape of a Hugging Face folder from its `config.json`.

    Raises `InputError` when the file is missing, is no JSON object, lacks a size, or describes layers without a
    cost model here: latent or linear attention, or dense layers between those with experts.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name the folder of a Hugging Face model") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no JSON object")
    config = config.get("text_config", config)
    if config.get("kv_lora_rank"):
        raise InputError(f"{path} has kv_lora_rank: latent attention has no cost model here. Give tokens_per_hour.")
    hidden, heads = _size(path, config, "hidden_size", "n_embd"), _size(path, config, "num_attention_heads", "n_head")
    layers = _size(path, config, "num_hidden_layers", "n_layer")
    window, windowed_layers = _window(path, config, layers)
    return ModelArchitecture(
        name=folder.resolve().name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocabulary=_size(path, config, "vocab_size"),
        gated=str(config.get("hidden_act", "gelu_new")) in ("silu", "swish", "gelu_pytorch_tanh"),
        tied=bool(config.get("tie_word_embeddings", False)),
        bytes_per_weight=_bytes_per_number(path, config),
        bytes_per_kv=_bytes_per_number(path, config),
        window=window,
        windowed_layers=windowed_layers,
        **_feed_forward_sizes(path, config, hidden),
    )


def _feed_forward_sizes(path: Path, config: Mapping[str, Any], hidden: int) -> dict[str, int]:
    """Return the widths of the dense part and of the experts. Refuse a model whose layers differ in them."""
    dense = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    experts = next((int(config[key]) for key in _EXPERTS if config.get(key)), 0)
    if not experts:
        return {"inner": int(dense)}
    mixed = {
        "first_k_dense_replace": config.get("first_k_dense_replace"),
        "mlp_only_layers": config.get("mlp_only_layers"),
        "decoder_sparse_step": (config.get("decoder_sparse_step") or 1) - 1,
        "interleave_moe_layer_step": (config.get("interleave_moe_layer_step") or 1) - 1,
    }
    if found := [key for key, value in mixed.items() if value]:
        raise InputError(
            f"{path} has {found[0]}: dense layers between those with experts have no cost model here. "
            "Give tokens_per_hour."
        )
    width = int(config.get("moe_intermediate_size") or dense)
    shared = config.get("shared_expert_intermediate_size") or width * (config.get("n_shared_experts") or 0)
    active = _size(path, config, "num_experts_per_tok", "num_experts_per_token")
    return {"inner": int(shared), "experts": experts, "active_experts": active, "expert_inner": width}


def _window(path: Path, config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """Return the width of the sliding window, and how many layers have it. (0, 0) without one."""
    kinds = config.get("layer_types") or []
    if unknown := sorted(set(kinds) - _KNOWN_LAYERS):
        raise InputError(f"{path} has layers of {unknown[0]}, which have no cost model here. Give tokens_per_hour.")
    window = config.get("sliding_window")
    if not window or not config.get("use_sliding_window", True):
        return 0, 0
    if kinds:
        return int(window), kinds.count("sliding_attention")
    if pattern := config.get("sliding_window_pattern"):  # Gemma 3: each pattern-th layer sees all
        return int(window), layers - layers // int(pattern)
    if config.get("model_type") == "gemma2":  # every other layer, beginning with the first
        return int(window), (layers + 1) // 2
    if config.get("use_sliding_window"):  # Qwen: the layers from `max_window_layers` on
        return int(window), max(0, layers - int(config.get("max_window_layers") or 0))
    return int(window), layers


def _size(path: Path, config: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise InputError(f"{path} has no positive {' or '.join(keys)}")


def _bytes_per_number(path: Path, config: Mapping[str, Any]) -> float:
    name = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    if name not in _BYTES_OF_DTYPE:
        raise InputError(f"{path} has the data type {name!r}, must be one of {', '.join(_BYTES_OF_DTYPE)}")
    return _BYTES_OF_DTYPE[name]
