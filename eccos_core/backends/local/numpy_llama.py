"""The pocket models and SmolLM2 on numpy: small Llama models that answer without torch and transformers.

Importing torch and transformers takes seconds, and reading a 1 MB model takes milliseconds. So the pocket pool runs on
this code, in the base install. It computes what transformers' `LlamaForCausalLM` computes in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from eccos_core.backends.local.quantised import read_manifest, read_quantised
from eccos_core.domain import BoolArray, Float32Array, IntArray

_MASKED = np.float32(-1e30)  # not infinity: a padded row sees nothing at all, and its softmax must stay a number
_SCORES = 1 << 22  # the most attention scores of a head that one pass of `prefill` computes: bounds its memory
Cache: TypeAlias = list[tuple[Float32Array, Float32Array]]  # (keys, values) of each layer, (B, key heads, L, width)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a numpy model computes."""

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


class NumpyLlama:
    """A Llama model's weights in float32, and its forward pass. Safe to call from several threads."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self.config = dict(config)
        self.device = Device()
        self._heads, self._width = int(config["num_attention_heads"]), int(config["head_dim"])
        self._key_heads = int(config["num_key_value_heads"])
        self._epsilon = np.float32(config["rms_norm_eps"])
        exponents = np.arange(0, self._width, 2, dtype=np.float32) / self._width
        self._frequencies = (1.0 / np.float32(config["rope_parameters"]["rope_theta"]) ** exponents).astype(np.float32)
        self._weights = {name: np.asarray(array, dtype=np.float32) for name, array in weights.items()}
        self._layers = [f"model.layers.{number}." for number in range(int(config["num_hidden_layers"]))]

    def num_parameters(self) -> int:
        """Count the weights."""
        return sum(array.size for array in self._weights.values())

    def forward(
        self, ids: IntArray, positions: IntArray, mask: BoolArray, cache: Cache | None
    ) -> tuple[Float32Array, Cache]:
        """Return logits (B, V) of each row's next token, and the cache with these tokens.

        ids, positions (B, T): the new tokens and their places. mask (B, L): True for real tokens, the new ones included
        as the last T columns.
        """
        hidden = self._weights["model.embed_tokens.weight"][ids]
        new, length = ids.shape[1], mask.shape[1]
        # token t of the new ones sees every real column up to its own
        seen = mask[:, None, None, :] & (np.arange(length) <= np.arange(length - new, length)[:, None])
        bias = np.where(seen, np.float32(0), _MASKED)
        angles = positions[:, None, :, None].astype(np.float32) * self._frequencies
        rotation = np.cos(angles), np.sin(angles)
        grown: Cache = []
        for number, layer in enumerate(self._layers):
            normed = self._norm(hidden, layer + "input_layernorm.weight")
            mixed, kept = self._attend(layer, normed, rotation, bias, cache[number] if cache else None)
            hidden = hidden + mixed
            grown.append(kept)
            hidden = hidden + self._expand(layer, self._norm(hidden, layer + "post_attention_layernorm.weight"))
        last = self._norm(hidden[:, -1], "model.norm.weight")
        return last @ self._weights["model.embed_tokens.weight"].T, grown

    def _attend(
        self,
        layer: str,
        hidden: Float32Array,
        rotation: tuple[Float32Array, Float32Array],
        bias: Float32Array,
        cached: tuple[Float32Array, Float32Array] | None,
    ) -> tuple[Float32Array, tuple[Float32Array, Float32Array]]:
        rows, new, _ = hidden.shape

        def project(name: str, heads: int) -> Float32Array:
            flat = hidden @ self._weights[f"{layer}self_attn.{name}.weight"].T
            return flat.reshape(rows, new, heads, self._width).transpose(0, 2, 1, 3)

        queries = _rotate(project("q_proj", self._heads), *rotation)
        keys = _rotate(project("k_proj", self._key_heads), *rotation)
        values = project("v_proj", self._key_heads)
        if cached is not None:
            keys, values = np.concatenate([cached[0], keys], axis=2), np.concatenate([cached[1], values], axis=2)
        # query heads that read the same keys stand in one matrix (grouped-query attention, Ainslie et al. 2023)
        queries = queries.reshape(rows, self._key_heads, -1, self._width)
        scores = (queries @ keys.swapaxes(2, 3)).reshape(rows, self._heads, new, -1)
        scores = scores * np.float32(self._width**-0.5) + bias
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        read = shares.reshape(rows, self._key_heads, -1, shares.shape[-1]) @ values
        mixed = read.reshape(rows, self._heads, new, self._width).transpose(0, 2, 1, 3).reshape(rows, new, -1)
        return mixed @ self._weights[f"{layer}self_attn.o_proj.weight"].T, (keys, values)

    def _expand(self, layer: str, hidden: Float32Array) -> Float32Array:
        gate = hidden @ self._weights[layer + "mlp.gate_proj.weight"].T
        up = hidden @ self._weights[layer + "mlp.up_proj.weight"].T
        activated: Float32Array = gate / (1 + np.exp(-gate)) * up
        return activated @ self._weights[layer + "mlp.down_proj.weight"].T

    def _norm(self, hidden: Float32Array, weight: str) -> Float32Array:
        scale = 1 / np.sqrt((hidden * hidden).mean(axis=-1, keepdims=True) + self._epsilon)
        normed: Float32Array = hidden * scale * self._weights[weight]
        return normed


def _rotate(vectors: Float32Array, cosine: Float32Array, sine: Float32Array) -> Float32Array:
    """Rotary position embedding (Su et al. 2021, eq. 34), with Llama's halves instead of pairs."""
    first, second = np.split(vectors, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


class NumpyTokenizer:
    """A tokenizer without transformers: text to ids and back, and the chat template.

    `tokenizer` is one of the package `tokenizers`. `pad` and `end` are texts of its tokens.
    """

    def __init__(self, tokenizer: Any, chat_template: str, pad: str, end: str) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._tokenizer = tokenizer
        self.pad_token_id: int | None = tokenizer.token_to_id(pad)
        self.eos_token_id: int | None = tokenizer.token_to_id(end)
        self.chat_template = chat_template
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(chat_template)

    @classmethod
    def from_folder(cls, folder: Path) -> NumpyTokenizer:
        """Read the tokenizer of a Hugging Face folder. Raises OSError, ValueError or KeyError."""
        from tokenizers import Tokenizer  # type: ignore[import-untyped, unused-ignore]

        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(tokenizer, template, pad=settings["pad_token"], end=settings["eos_token"])

    def apply_chat_template(self, chat: Sequence[Mapping[str, Any]], **settings: Any) -> str:
        """Render a conversation."""
        return self._template.render(messages=chat, **settings)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the ids of a text, under `input_ids`."""
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False, **_: Any) -> str:
        """Return the text of some ids."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


class NumpyBatch:
    """`RunningBatch` on numpy: rows that decode together, padded on the left."""

    can_join = True

    def __init__(self, model: NumpyLlama, pad_id: int) -> None:
        self._model, self._pad_id = model, pad_id
        self._cache: Cache = []
        self._mask: BoolArray = np.zeros((0, 0), dtype=bool)

    @property
    def size(self) -> int:
        """B, rows in the batch."""
        return len(self._mask)

    @property
    def columns(self) -> int:
        """L, columns of the cache, padding included."""
        return int(self._mask.shape[1])

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Float32Array, Cache, BoolArray]:
        """Read K prompts. Return logits (K, V) of each next token, their cache, and their mask (K, P)."""
        width = max(map(len, prompts))
        ids = np.full((len(prompts), width), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(prompts), width), dtype=bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = True
        positions = (mask.cumsum(axis=1) - 1).clip(min=0)
        step = max(16, _SCORES // (len(prompts) * width))
        cache: Cache | None = None
        for start in range(0, width, step):
            seen = slice(start, start + step)
            logits, cache = self._model.forward(ids[:, seen], positions[:, seen], mask[:, : start + step], cache)
        assert cache is not None  # a prompt has a token
        return logits, cache, mask

    def join(self, cache: Cache, mask: BoolArray) -> None:
        """Put prefilled rows below the running ones."""
        if not self.size:
            self._cache, self._mask = cache, mask
            return
        width = max(self._mask.shape[1], mask.shape[1])
        ours, theirs = width - self._mask.shape[1], width - mask.shape[1]
        self._cache = [
            (
                np.concatenate([_pad(keys, ours), _pad(new_keys, theirs)]),
                np.concatenate([_pad(values, ours), _pad(new_values, theirs)]),
            )
            for (keys, values), (new_keys, new_values) in zip(self._cache, cache, strict=True)
        ]
        self._mask = np.concatenate([np.pad(self._mask, ((0, 0), (ours, 0))), np.pad(mask, ((0, 0), (theirs, 0)))])

    def step(self, tokens: Sequence[int]) -> Float32Array:
        """Append one token to every row. Return the logits (B, V) of the next one."""
        positions = self._mask.sum(axis=1, keepdims=True)
        self._mask = np.pad(self._mask, ((0, 0), (0, 1)), constant_values=True)
        ids = np.asarray(tokens, dtype=np.int64)[:, None]
        logits, self._cache = self._model.forward(ids, positions, self._mask, self._cache)
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order. Columns that are padding in all of them go."""
        if not rows:
            self.clear()
            return
        mask = self._mask[list(rows)]
        unused = int(mask.argmax(axis=1).min())  # the first real token of each row: padding is on the left
        self._mask = mask[:, unused:]
        self._cache = [(keys[list(rows), :, unused:], values[list(rows), :, unused:]) for keys, values in self._cache]

    def logprobs(self, logits: Float32Array, tokens: Sequence[int]) -> list[float]:
        """Return the log-probability of the token that each row chose. logits (B, V)."""
        shifted = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
        chosen = shifted[np.arange(len(tokens)), list(tokens)]
        found: list[float] = (chosen - np.log(np.exp(shifted).sum(axis=-1))).tolist()
        return found

    def clear(self) -> None:
        """Forget every row."""
        self._cache = []
        self._mask = np.zeros((0, 0), dtype=bool)

    def choose(self, logits: Float32Array, draws: Sequence[tuple[float, float, float]]) -> list[int]:
        """Return the next token of each row. draws: (temperature, top_p, uniform draw) of each row."""
        return [_sample(row, *draw) for row, draw in zip(logits, draws, strict=True)]


def _sample(logits: Float32Array, temperature: float, top_p: float, uniform: float) -> int:
    """Sample one token by inverse transform from the nucleus (Holtzman et al. 2020). Temperature 0 is greedy."""
    if temperature <= 0:
        return int(logits.argmax())
    scaled = logits / max(temperature, 1e-5)
    probability = np.exp(scaled - scaled.max())
    probability /= probability.sum()
    order = np.argsort(-probability, kind="stable")
    cumulative = probability[order].cumsum()
    kept = max(1, int((cumulative - probability[order] < top_p).sum()))
    place = int((cumulative <= uniform * cumulative[kept - 1]).sum())
    return int(order[min(place, kept - 1)])


def _pad(array: Float32Array, columns: int) -> Float32Array:
    return np.pad(array, ((0, 0), (0, 0), (columns, 0), (0, 0)))


def load_numpy_llama(folder: Path) -> tuple[NumpyLlama, NumpyTokenizer, dict[str, Any]]:
    """Read a Llama folder. Return the model, its tokenizer and its generation settings.

    Raises OSError, ValueError, KeyError or `ArtifactError` for a folder that is damaged or holds another architecture.
    """
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not runs_on_numpy(config):
        raise ValueError(f"{folder} is no Llama model that numpy can run")
    manifest = read_manifest(folder)
    weights = load_file(folder / "model.safetensors") if manifest is None else read_quantised(folder, manifest)
    model = NumpyLlama(config, weights)
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    return model, NumpyTokenizer.from_folder(folder), generation


def runs_on_numpy(config: Mapping[str, Any]) -> bool:
    """Tell whether a configuration describes the Llama variant that this file computes."""
    return (
        config.get("architectures") == ["LlamaForCausalLM"]
        and config.get("hidden_act") == "silu"
        and config.get("num_key_value_heads", 0) > 0
        and config.get("num_attention_heads", 0) % config["num_key_value_heads"] == 0
        and config.get("tie_word_embeddings") is True
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
        and config.get("rope_parameters", {}).get("rope_type") == "default"
    )
