"""The shape of a dense decoder: its matrices, and the bytes that its weights and its cache take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eccos_core.errors import InputError, did_you_mean

_BYTES_OF_DTYPE = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """A dense decoder. `heads` ask, `kv_heads` are kept in the cache, each `head_dim` wide. `inner` is the width
    between the two feed-forward matrices, and `gated` says that the first of them is doubled.
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

    def __post_init__(self) -> None:
        counts = (self.layers, self.hidden, self.heads, self.kv_heads, self.head_dim, self.inner, self.vocabulary)
        if min(counts) < 1:
            raise InputError(f"the model {self.name} has a size below 1: {counts}")
        if self.heads % self.kv_heads:
            raise InputError(
                f"the model {self.name} has {self.heads} heads, which {self.kv_heads} KV heads do not divide"
            )

    def layer_matrices(self, shards: int = 1) -> tuple[tuple[int, int], ...]:
        """Return (inputs, outputs) of the four matrix products of a layer, each on one of `shards` GPUs."""
        query, keys = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        up = 2 * self.inner if self.gated else self.inner
        return (
            (self.hidden, (query + keys) // shards),
            (query // shards, self.hidden),
            (self.hidden, up // shards),
            (self.inner // shards, self.hidden),
        )

    def elementwise_width(self, shards: int = 1) -> float:
        """Return the numbers per token that norms, rotations, activations and sums of a layer read and write."""
        rotated = 2 * (self.heads + self.kv_heads) * self.head_dim
        activated = (3 if self.gated else 2) * self.inner
        return 7 * self.hidden + (rotated + activated) / shards

    @property
    def weights(self) -> int:
        """The number of weights, embeddings included."""
        layer = sum(inputs * outputs for inputs, outputs in self.layer_matrices())
        return self.layers * layer + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return self.weights * self.bytes_per_weight

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that one token takes in the cache, over all layers."""
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

    Raises `InputError` when the file is missing, is no JSON object, lacks a size, or describes a mixture of experts.
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
    experts = [key for key in _EXPERTS if config.get(key)]
    if experts:
        raise InputError(
            f"{path} has {experts[0]}: a mixture of experts has no cost model here, only dense models have"
        )
    hidden, heads = _size(path, config, "hidden_size", "n_embd"), _size(path, config, "num_attention_heads", "n_head")
    inner = config.get("intermediate_size") or config.get("n_inner") or 4 * hidden
    return ModelArchitecture(
        name=folder.resolve().name,
        layers=_size(path, config, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        inner=int(inner),
        vocabulary=_size(path, config, "vocab_size"),
        gated=str(config.get("hidden_act", "gelu_new")) in ("silu", "swish", "gelu_pytorch_tanh"),
        tied=bool(config.get("tie_word_embeddings", False)),
        bytes_per_weight=_bytes_per_number(path, config),
        bytes_per_kv=_bytes_per_number(path, config),
    )


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
